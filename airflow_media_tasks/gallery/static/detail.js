// Everything about one item, and what can be done about it.

import { AIRFLOW, BASE, ask, button, copyButton, el, query, rootsNote, say, symbol, trouble } from "./elements.js";
import { card, chip, costsOf, isUnderWay, itemHref, iterationOf, keyOf, stage, taskOf, titleOf, unreadableNote } from "./cards.js";
import { fileHref, player } from "./media.js";
import { duration, moment, size } from "./words.js";

const REFRESH = 5000;

function facts(pairs) {
  return el("dl", {}, pairs.filter(([, value]) => value !== null && value !== undefined && value !== "").flatMap(([name, value]) => [
    el("dt", { text: name }), value instanceof Node ? el("dd", {}, value) : el("dd", { text: String(value) })]));
}

function section(title, ...content) {
  return el("section", {}, el("h3", { text: title }), ...content);
}

function values(object) {
  return facts(Object.entries(object).map(([name, value]) => [name, typeof value === "string" ? value : JSON.stringify(value)]));
}

function fileFigure(file, label) {
  const shape = file.width && file.height ? `${file.width} × ${file.height} px` : null;
  const lines = [file.content_type || file.kind, shape, file.duration ? duration(file.duration) : null, size(file.size), file.watermarked ? "watermarked" : null, file.landed ? "landed" : null];
  const expiry = (!file.landed || file.why) && file.expires_at ? `${file.expired ? "expired" : "expires"} ${moment(file.expires_at)}` : null;
  return el("figure", {}, player(file, label, true), el("figcaption", {},
    lines.concat(expiry).filter(Boolean).map((text) => el("span", { text })),
    file.src ? el("a", { class: "link", href: fileHref(file.src), download: "", target: "_blank", rel: "noopener noreferrer" }, symbol("download"), "Download") : null,
    file.checked ? el("span", { class: "path", text: file.checked }) : null,
    file.why ? el("span", { class: "path", text: file.why }) : null,
    file.path ? el("span", { class: "path mono", text: file.path }) : null,
    file.sha256 ? el("span", { class: "path mono", text: `sha256 ${file.sha256}` }) : null));
}

function errorBox(error) {
  return el("section", { class: "box bad", "aria-label": "What went wrong" }, el("strong", { text: error.type }),
    el("p", { class: "words", tabindex: "0", text: error.message }),
    error.code ? el("p", { class: "code", text: `code ${error.code}` }) : null,
    error.advice ? el("p", { class: "advice" }, el("b", { text: "What to do: " }), error.advice) : null);
}

// The question that a submission of unknown outcome leaves; *again* draws the page anew after an answer.
function question(item, again) {
  const box = el("section", { class: "box ask", "aria-label": "Was it accepted?" });
  const act = async (what, extra) => {
    box.replaceChildren(el("p", { role: "status", text: "Writing it down" }));
    try {
      const body = JSON.stringify({ ...keyOf(item), client_ref: item.client_ref, ...extra });
      await ask(`api/${what}`, { method: "POST", body, headers: { "Content-Type": "application/json", "X-Media-Tasks": "1" } });
    } catch (error) {
      box.replaceChildren(trouble(error, () => draw()));
      return;
    }
    box.replaceChildren(el("p", {}, el("strong", { text: "Done. The task was cleared and goes on." })));
    say("Done. The task was cleared and goes on.");
    setTimeout(again, 2500);
  };
  const sure = (words, consequence, run, from) => {
    const yes = button({ class: "primary", onclick: run }, null, "Yes");
    const no = button({ onclick: () => { draw(); [...box.querySelectorAll("button")].find((one) => one.textContent === from)?.focus(); } }, null, "No");
    box.replaceChildren(el("div", { role: "group", "aria-label": words }, el("strong", { text: words }), el("p", { text: consequence })), el("div", { class: "tools" }, yes, no));
    yes.focus();
    say(`${words} ${consequence}`);
  };
  const adopt = (id, from) => sure(`It became ${id}?`, "The task goes on with it, and nothing is paid again.", () => act("adopt", { media_task_id: id }), from);
  const draw = () => {
    const lines = item.candidates.map((one) => el("li", {},
      el("div", { class: "what" }, el("span", { class: "mono", text: one.id }),
        el("small", { text: [one.status, moment(one.created_at)].filter(Boolean).join(", ") }), one.prompt ? el("small", { text: one.prompt }) : null),
      item.can_edit ? button({ onclick: () => adopt(one.id, "Adopt"), "aria-label": `Adopt ${one.id}` }, null, "Adopt") : null));
    const own = el("input", { class: "mono", "aria-label": "Another id to adopt", placeholder: "media_task_id" });
    const other = () => { if (own.value.trim()) adopt(own.value.trim(), "Adopt this id"); else own.focus(); };
    own.addEventListener("keydown", (event) => { if (event.key === "Enter") other(); });
    box.replaceChildren(...[
      el("strong", { text: "A submission was sent, and nobody knows whether it was accepted." }),
      el("p", { text: item.candidates.length ? "If it is one of these tasks of the account, adopt it: nothing is paid again." : "The account shows no task since then that it could be." }),
      lines.length ? el("ul", { class: "candidates" }, lines) : null,
      item.can_edit ? el("div", { class: "tools" }, own, button({ onclick: other }, null, "Adopt this id"), el("span", { class: "space" }),
        button({ onclick: () => sure("Submit it anew?", "That is paid, and a second time if the first one was accepted after all.", () => act("resubmit", {}), "Submit anew") }, null, "Submit anew"))
        : el("p", { text: "To answer, ask somebody who may edit this DAG's tasks." })].filter(Boolean));
  };
  draw();
  return box;
}

// The requests of a batch, a page at a time.
class Requests {
  constructor(item, params, go) {
    this.items = item.batch.items || [];
    this.total = item.batch.total;
    this.params = params;
    this.go = go;
    this.list = el("ul", { class: "grid", "aria-label": "Requests of the batch" }, this.items.map((one) => card(one, go)));
    this.more = el("div", { class: "more" });
    this.offer();
  }

  get cursor() {
    return this.items.length && this.items.length < this.total ? this.items.length : null;
  }

  offer() {
    this.more.replaceChildren(...(this.cursor ? [el("button", { type: "button", onclick: () => this.next(), text: "Show more" }), el("span", { text: `${this.items.length} of ${this.total}` })] : []));
  }

  async next() {
    if (!this.cursor) return false;
    try {
      const page = await ask(`api/item?${this.params}&offset=${this.items.length}`);
      const found = (page.batch && page.batch.items) || [];
      this.items.push(...found);
      this.list.append(...found.map((one) => card(one, this.go)));
      if (!found.length) this.total = this.items.length;
      this.offer();
      return found.length > 0;
    } catch (error) {
      this.more.replaceChildren(trouble(error, () => this.next()));
      return false;
    }
  }
}

export class Detail {
  // *among* is the list that the item was opened from, if there was one: a grid, or the requests of a batch.
  constructor(show, go, among, back) {
    Object.assign(this, { show, go, among, back, shown: true });
    this.params = new URLSearchParams(location.search);
    // Where a task is not mapped, Airflow leaves its placeholder as it is.
    if (!/^-?\d+$/.test(this.params.get("map_index"))) this.params.set("map_index", "-1");
    this.keys = { ArrowLeft: () => this.move(-1), ArrowRight: () => this.move(1), Escape: back };
  }

  get place() {
    return this.among ? this.among.items.findIndex((item) => query(keyOf(item)) === this.params.toString()) : -1;
  }

  leave() {
    this.shown = false;
    clearTimeout(this.timer);
  }

  async move(step) {
    const { place } = this;
    if (place < 0 || this.moving) return;
    if (step > 0 && place + 1 === this.among.items.length && this.among.cursor) {
      this.moving = true;
      await this.among.next();
      this.moving = false;
    }
    const item = this.among.items[this.place + step];
    if (this.shown && item) this.go(null, itemHref(item), true);
  }

  head() {
    const { place } = this;
    const title = el("h1", { class: "visually-hidden", text: "Media of one task" });
    const all = button({ onclick: this.back, "aria-keyshortcuts": "Escape" }, "back", place >= 0 ? "Back" : this.params.has("number") ? "The batch" : "All media");
    if (place < 0) return [el("div", { class: "tools" }, title, all)];
    const { items, cursor } = this.among;
    const step = (by, name, text, key) => button({ disabled: by < 0 ? !place : place + 1 === items.length && !cursor, onclick: () => this.move(by), "aria-label": text, title: text, "aria-keyshortcuts": key, class: "icon" }, name);
    return [el("div", { class: "tools" }, title, all, el("span", { class: "space" }),
      el("span", { class: "count", text: `${place + 1} of ${items.length}${cursor ? "+" : ""}` }),
      step(-1, "back", "Previous", "ArrowLeft"), step(1, "next", "Next", "ArrowRight"))];
  }

  async load() {
    const focused = document.activeElement && document.activeElement.getAttribute("aria-label");
    const head = this.head();
    this.show(head, document.querySelector("#main .detail") ? null : [el("p", { class: "hint", role: "status", text: "Loading" })]);
    if (focused) head[0].querySelector(`[aria-label="${CSS.escape(focused)}"]`)?.focus();
    let item;
    try {
      item = await ask(`api/item?${this.params}`);
    } catch (error) {
      if (!this.shown) return;
      this.show(head, [error.status === 404
        ? el("div", { class: "empty" }, symbol("image"), el("h2", { text: "No media here" }), el("p", { text: this.params.has("number") ? error.message : "This task has not generated anything." }))
        : trouble(error, () => this.load())]);
      return;
    }
    if (this.shown) this.draw(item, head);
  }

  draw(item, head) {
    const label = titleOf(item);
    document.title = label.slice(0, 80);
    this.requests = item.batch ? new Requests(item, this.params, this.go) : null;
    this.show(head, [el("div", { class: item.batch ? "detail batch" : "detail" }, this.media(item, label), this.side(item, label))]);
    if (this.last !== item.status) say(`${label}: ${item.status}`);
    this.last = item.status;
    if (isUnderWay(item)) this.timer = setTimeout(() => this.refresh(), REFRESH);
  }

  // Looks again at what is under way, and draws it only where nobody is reading along with the keyboard.
  async refresh() {
    if (!this.shown) return;
    const item = document.hidden ? null : await ask(`api/item?${this.params}`).catch(() => null);
    if (!this.shown) return;
    if (!item) this.timer = setTimeout(() => this.refresh(), REFRESH);
    else if (item.status === this.last && !item.batch) {
      document.querySelector(".files").replaceWith(this.media(item, titleOf(item)));
      this.timer = setTimeout(() => this.refresh(), REFRESH);
    } else this.draw(item, this.head());
  }

  media(item, label) {
    const media = el("div", { class: "files" }, item.setting ? rootsNote(item.setting) : null);
    if (item.status === "unreadable") {
      media.append(el("figure", { class: "still" }, unreadableNote(item)));
    } else if (item.batch) {
      media.append(this.requests.items.length ? this.requests.list : el("p", { class: "hint", text: isUnderWay(item) ? "Results come when the batch ends." : item.batch.why || "The file of results cannot be read." }), this.requests.more);
    } else if (item.files.length) {
      media.append(...item.files.map((file) => fileFigure(file, label)));
    } else if (isUnderWay(item)) {
      media.append(el("figure", { class: "still" }, stage(item).firstChild));
    } else {
      media.append(el("figure", { class: "still nothing" }, el("div", { class: "note" }, symbol(item.status === "unknown" ? "unknown" : "image"), el("b", { text: item.empty }))));
    }
    return media;
  }

  side(item, label) {
    const { links, batch } = item;
    const task = taskOf(item) + iterationOf(item);
    const within = (href, text) => el("a", { href: AIRFLOW + href, target: "_top", text });
    const mono = (text) => (text ? el("span", { class: "mono", text }) : null);
    const { prompt: _, ...rest } = item.arguments || {};
    const others = item.prompt && item.arguments.prompt === item.prompt ? rest : item.arguments || {};
    return el("div", { class: "side" },
      el("div", { class: "title" }, el("p", {}, chip(item.status)), el("h2", { text: label })),
      item.status === "unknown" ? question(item, () => this.load()) : item.error ? errorBox(item.error) : null,
      item.notice ? el("section", { class: "box ask", "aria-label": "What to know" }, el("p", { class: "words", text: item.notice })) : null,
      batch ? section("Batch", stage(item).firstChild, facts([["results", mono(batch.results)], ...Object.entries(batch.errors || {})])) : null,
      item.unreadable ? null : section("How it was made", facts([
        ["provider", item.provider], ["model", item.model], ["operation", item.operation], ["cost", costsOf(item).join(" and ")],
        ["took", duration(item.seconds)], ["submitted", moment(item.submitted_at)], ["finished", moment(item.finished_at)],
        ["media_task_id", mono(item.media_task_id)], ["connection", item.media_conn_id]])),
      Object.keys(others).length ? section("Arguments", values(others)) : null,
      section("Where", facts([
        ["DAG", within(links.dag, item.dag_id)], ["run", within(links.run, item.run_id)], ["task", within(links.task, task)],
        ["name", item.name], ["try", item.try_number], ["request", item.number]])),
      item.reference ? section("Use it in a DAG", el("pre", { tabindex: "0", "aria-label": "Reference for a DAG", text: item.reference })) : null,
      el("div", { class: "tools" }, item.media_task_id ? copyButton("Copy id", item.media_task_id) : null,
        item.reference ? copyButton("Copy reference for a DAG", item.reference) : null,
        item.prompt ? copyButton("Copy prompt", item.prompt) : null,
        links.console ? el("a", { class: "link", href: links.console, target: "_blank", rel: "noopener noreferrer" }, symbol("out"), "Provider console") : null));
  }
}

export const batchHref = (params) => {
  const place = new URLSearchParams(params);
  place.delete("number");
  return `${BASE}/item?${place}`;
};
