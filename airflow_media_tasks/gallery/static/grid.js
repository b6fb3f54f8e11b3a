// The grid: a page of filters, totals and cards, which stays as it is while its items are looked at one by one.

import { BASE, ask, button, copyButton, el, query, rootsNote, say, symbol, trouble } from "./elements.js";
import { card, isUnderWay, keyOf, nameOf } from "./cards.js";
import { duration, moment, sums } from "./words.js";

const FILTERS = ["dag_id", "run_id", "task_id", "map_index", "provider", "kind", "status", "q", "since", "until"];
const DAY = 86400e3;
const REFRESH = 5000;
const WATCHED = 30;
const FIRST_DAG = `from airflow.sdk import DAG
from airflow_media_tasks.operators import GenerateVideoOperator

with DAG("first_video"):
    GenerateVideoOperator(task_id="video", media_conn_id="kling_default", prompt="A fox in the snow")
`;

export function filtersNow() {
  const params = new URLSearchParams(location.search);
  const filters = Object.fromEntries(FILTERS.map((name) => [name, params.get(name) || ""]));
  // Where a task is not mapped, Airflow leaves its placeholder as it is.
  if (!/^-?\d*$/.test(filters.map_index)) filters.map_index = "";
  return filters;
}

function select(name, label, values, current) {
  const known = values.some(([value]) => value === current) || !current ? values : [...values, [current, current]];
  return el("select", { name, "aria-label": label, class: current ? "set" : null },
    [["", label], ...known].map(([value, text]) => el("option", { value, selected: value === current, text })));
}

function filterForm(filters, go) {
  const midnight = new Date();
  midnight.setHours(0, 0, 0, 0);
  const times = [[midnight.toISOString(), "Today"], [new Date(midnight - 6 * DAY).toISOString(), "Last 7 days"], [new Date(midnight - 29 * DAY).toISOString(), "Last 30 days"]];
  if (filters.since && !times.some(([value]) => value === filters.since)) times.unshift([filters.since, `Since ${moment(filters.since)}`]);
  const same = (names) => names.map((name) => [name, name[0].toUpperCase() + name.slice(1)]);
  const others = el("div", { class: "others", id: "others" },
    el("input", { class: filters.dag_id ? "set" : null, name: "dag_id", placeholder: "DAG", "aria-label": "DAG", value: filters.dag_id }),
    el("input", { class: filters.run_id ? "set" : null, name: "run_id", placeholder: "Run", "aria-label": "Run, of the DAG named", value: filters.run_id }),
    select("provider", "Provider", ["vap", "acedata", "kling"].map((name) => [name, name]), filters.provider),
    select("kind", "Kind", same(["image", "video", "audio", "batch"]), filters.kind),
    select("status", "Status", same(["running", "queued", "succeeded", "failed", "unknown"]), filters.status),
    select("since", "Any time", times, filters.since));
  const hidden = FILTERS.slice(0, 7).concat("since").filter((name) => filters[name]).length;
  const toggle = button({ class: "toggle", "aria-expanded": "false", "aria-controls": "others" }, "filters", hidden ? `Filters (${hidden})` : "Filters");
  toggle.addEventListener("click", () => toggle.setAttribute("aria-expanded", String(others.classList.toggle("open"))));
  const form = el("form", { class: "filters", role: "search", "aria-label": "Filter the media" },
    el("div", { class: "search" }, symbol("search"),
      el("input", { type: "search", name: "q", placeholder: "Search prompts", "aria-label": "Search prompts", "aria-keyshortcuts": "/", value: filters.q })),
    toggle, others, el("button", { type: "submit", class: "submit", text: "Show" }),
    FILTERS.some((name) => filters[name]) ? el("button", { type: "button", class: "quiet", onclick: () => go(null, `${BASE}/`), text: "Clear" }) : null);
  const apply = () => go(null, `${BASE}/?${query({ ...filters, ...Object.fromEntries(new FormData(form)) })}`);
  form.addEventListener("submit", (event) => { event.preventDefault(); apply(); });
  for (const node of form.querySelectorAll("select")) node.addEventListener("change", apply);
  form.querySelector("[name=q]").addEventListener("search", apply);
  return form;
}

// What only a link can filter by, and what has no field of its own; each to be taken away.
function filterChips(filters, go) {
  const names = { task_id: "task", map_index: "copy", until: "until" };
  const set = Object.keys(names).filter((name) => filters[name]);
  return set.length ? el("p", { class: "set-filters" }, set.map((name) => {
    const words = `${names[name]} ${name === "until" ? moment(filters[name]) : filters[name]}`;
    return el("button", { type: "button", "aria-label": `Take away the filter: ${words}`, onclick: () => go(null, `${BASE}/?${query({ ...filters, [name]: "" })}`) },
      el("span", { text: words }), symbol("failed"));
  })) : null;
}

function showTotals(totals, box) {
  const more = totals.complete ? "" : "+";
  const fact = (label, value, ...lines) => el("div", { class: totals.by_provider.some((one) => one.provider === label) ? "of-provider" : null }, el("dt", { text: label }), el("dd", {}, el("span", { text: value }), lines.map((line) => el("small", { text: line }))));
  const spent = sums(totals.spent, totals.estimated, more);
  const today = sums(totals.spent_today, totals.estimated_today, totals.complete_today ? "" : "+");
  const parts = [
    fact("Made", `${totals.made}${more}`, totals.running ? `${totals.running} under way` : "none under way"),
    totals.success_rate === null ? null : fact("Succeeded", `${Math.floor(totals.success_rate * 1000) / 10}%`, `${totals.failed}${more} failed`),
    totals.median_seconds === null ? null : fact("Median time", duration(totals.median_seconds)),
    spent.length ? fact("Spent", ...spent) : null,
    today.length ? fact("Spent today", ...today) : null,
    ...totals.by_provider.filter((one) => one.made && totals.by_provider.length > 1).map((one) => fact(one.provider, `${one.made}${more}`, ...sums(one.spent, one.estimated, more))),
  ];
  box.replaceChildren(...parts.filter(Boolean));
  box.title = totals.complete ? "" : "There is more than could be counted in a moment.";
  box.hidden = !totals.made && !totals.failed && !totals.running;
}

function emptyState(filters, go) {
  if (FILTERS.some((name) => filters[name])) {
    return el("div", { class: "empty" }, symbol("search"), el("h2", { text: "Nothing matches" }), el("p", { text: "No media with these filters, as far back as Airflow remembers." }),
      el("p", {}, el("button", { type: "button", onclick: () => go(null, `${BASE}/`), text: "Show all media" })));
  }
  return el("div", { class: "empty" }, symbol("image"), el("h2", { text: "No media yet" }),
    el("p", { text: "What your DAGs generate appears here: pictures, films and sound, what they cost and where they come from. A first one:" }),
    el("pre", { tabindex: "0", "aria-label": "A first DAG", text: FIRST_DAG }),
    el("p", {}, copyButton("Copy this DAG", FIRST_DAG)));
}

export class Grid {
  // *show* puts a head and a main part into the page; *go* follows a link in place.
  constructor(show, go) {
    this.show = show;
    this.go = go;
    this.filters = filtersNow();
    this.search = location.search;
    this.items = [];
    this.cursor = "";
    this.scroll = 0;
    this.shown = false;
    this.ahead = null;
    this.list = el("ul", { class: "grid", "aria-label": "Media, newest first" });
    this.more = el("div", { class: "more" });
    this.totals = el("dl", { class: "totals", "aria-label": "Totals" });
    const { filters } = this;
    const title = filters.task_id ? "Media of this task" : filters.run_id ? "Media of this run" : filters.dag_id ? `Media of ${filters.dag_id}` : "Media";
    this.head = [el("h1", { text: title }), this.totals, filterForm(filters, go), filterChips(filters, go)].filter(Boolean);
    this.main = [el("p", { class: "hint", role: "status", text: "Loading" })];
    this.seen = new IntersectionObserver((entries) => { if (entries.some((entry) => entry.isIntersecting)) this.next(); }, { rootMargin: "600px" });
  }

  async load() {
    this.enter();
    try {
      await this.take(this.ask(""));
      // A search that has found nothing yet says how far it has come, and goes on.
      while (!this.items.length && this.cursor && this.shown) {
        const back = this.lookedBackTo ? `Looked back to ${moment(this.lookedBackTo)}` : "Nothing of this has begun yet";
        this.main[0].textContent = `${back}, and going on`;
        await this.take(this.ahead);
      }
    } catch (error) {
      this.draw([trouble(error, () => this.load())]);
      return;
    }
    this.draw(this.items.length ? [this.setting ? rootsNote(this.setting) : null, this.list, this.more].filter(Boolean) : [emptyState(this.filters, this.go)]);
    if (this.shown) say(this.items.length ? `${this.items.length} shown${this.cursor ? ", and there are more" : ""}` : "Nothing to show");
    this.seen.observe(this.more);
    this.count();
  }

  draw(main) {
    this.main = main;
    if (this.shown) this.show(this.head, this.main);
  }

  enter() {
    this.shown = true;
    this.show(this.head, this.main);
    scrollTo(0, this.scroll);
    document.title = this.head[0].textContent;
    clearInterval(this.timer);
    this.timer = setInterval(() => this.refresh(), REFRESH);
  }

  holds(params) {
    return this.items.some((item) => query(keyOf(item)) === params.toString());
  }

  // After its detail: the card, with the focus where it was.
  focus(item) {
    const node = [...this.list.children].find((one) => one.dataset.name === nameOf(item));
    node?.querySelector(".prompt a").focus({ preventScroll: true });
    node?.scrollIntoView({ block: "nearest" });
  }

  leave() {
    this.scroll = scrollY;
    this.shown = false;
    clearInterval(this.timer);
  }

  ask(cursor) {
    return ask(`api/items?${query({ ...this.filters, cursor })}`);
  }

  async take(coming) {
    const page = await coming;
    if (page instanceof Error) throw page;
    this.list.append(...page.items.map((item) => card(item, this.go)));
    this.items.push(...page.items);
    this.cursor = page.cursor;
    this.lookedBackTo = page.looked_back_to;
    this.setting = page.setting;
    // The next one comes while this one is looked at.
    this.ahead = page.cursor ? this.ask(page.cursor).catch((error) => error) : null;
    const back = page.cursor && page.looked_back_to ? `Looked back to ${moment(page.looked_back_to)}` : "";
    this.more.replaceChildren(...(page.cursor ? [el("button", { type: "button", onclick: () => this.next(), text: "Show more" }), el("span", { text: back })] : []));
  }

  // Shows the next page; whether there was one.
  async next() {
    if (this.busy || !this.ahead) return false;
    this.busy = true;
    try {
      await this.take(this.ahead);
    } catch (error) {
      this.more.replaceChildren(trouble(error, () => { this.ahead = this.ask(this.cursor).catch((again) => again); this.next(); }));
      this.ahead = null;
      return false;
    } finally {
      this.busy = false;
    }
    return true;
  }

  count() {
    ask(`api/totals?${query(this.filters)}`).then((totals) => {
      showTotals(totals, this.totals);
      const choice = this.head[2].elements.provider;
      const known = new Set([...choice.options].map((option) => option.value));
      choice.append(...totals.by_provider.map((one) => one.provider).filter((name) => name !== "other" && !known.has(name)).map((name) => el("option", { value: name, text: name })));
    }).catch((error) => {
      this.totals.replaceChildren();
      this.totals.hidden = true;
      say(`No totals: ${error.message}`);
    });
  }

  // While something is under way: what is new comes to the front, and what has changed is drawn anew.
  async refresh() {
    const running = this.items.filter(isUnderWay).slice(0, WATCHED);
    if (!running.length || document.hidden || this.refreshing) return;
    this.refreshing = true;
    try {
      const first = (await this.ask("")).items;
      const names = new Set(first.map(nameOf));
      const others = running.filter((item) => !names.has(nameOf(item)));
      const some = await Promise.all(others.map((item) => ask(`api/item?${query(keyOf(item))}`).catch(() => null)));
      if (this.shown) this.renew(first.concat(some.filter(Boolean)));
    } catch { /* the next time, perhaps */
    } finally {
      this.refreshing = false;
    }
  }

  renew(fresh) {
    let changed = false;
    const nodes = new Map([...this.list.children].map((node) => [node.dataset.name, node]));
    const places = new Map(this.items.map((item, place) => [nameOf(item), place]));
    const added = [];
    for (const item of fresh) {
      const place = places.get(nameOf(item));
      if (place === undefined) {
        added.push(item);
        continue;
      }
      const before = this.items[place];
      this.items[place] = item;
      if (!isUnderWay(item) && item.status === before.status) continue;
      const old = nodes.get(nameOf(item));
      const renewed = card(item, this.go);
      const focused = old.contains(document.activeElement);
      old.replaceWith(renewed);
      if (focused) renewed.querySelector(".prompt a").focus({ preventScroll: true });
      if (item.status !== before.status) {
        changed = true;
        if (!isUnderWay(item)) say(`${item.prompt || item.task_id}: ${item.status}`);
      }
    }
    this.items.unshift(...added);
    this.list.prepend(...added.map((item) => card(item, this.go)));
    if (changed || added.length) this.count();
  }
}
