// The page: everything that comes from a prompt or a provider is set as text, never as markup.

const meta = (name) => document.querySelector(`meta[name="${name}"]`).content;
const BASE = meta("base");
const AIRFLOW = meta("airflow");
const FILTERS = ["dag_id", "run_id", "task_id", "map_index", "provider", "kind", "status", "q", "since", "until"];
const DAY = 86400e3;
const REFRESH = 5000;
const head = document.getElementById("head");
const main = document.getElementById("main");

// Small things.

function el(tag, props, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(props || {})) {
    if (value === null || value === undefined || value === false) continue;
    if (name === "class") node.className = value;
    else if (name === "text") node.textContent = value;
    else if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
    else if (name in node && typeof value !== "string") node[name] = value;
    else node.setAttribute(name, value);
  }
  node.append(...children.flat().filter((child) => child !== null && child !== undefined && child !== false));
  return node;
}

function say(text) {
  document.getElementById("news").textContent = text;
}

async function ask(path, options) {
  const reply = await fetch(`${BASE}/${path}`, { credentials: "same-origin", ...options });
  if (reply.status === 401) throw new Error("You are logged out of Airflow: log in and load this page again.");
  const body = await reply.json().catch(() => ({}));
  if (!reply.ok) {
    const detail = typeof body.detail === "string" ? body.detail : JSON.stringify(body.detail || body.title || "");
    throw new Error(reply.status === 403 ? `You may not do or see this in Airflow. ${detail}` : `${reply.status}: ${detail}`);
  }
  return body;
}

function query(values) {
  const params = new URLSearchParams();
  for (const [name, value] of Object.entries(values)) {
    if (value !== "" && value !== null && value !== undefined) params.set(name, value);
  }
  return params.toString();
}

const keyOf = (item) => ({ dag_id: item.dag_id, run_id: item.run_id, task_id: item.task_id, map_index: item.map_index, number: item.number });
const nameOf = (item) => JSON.stringify(Object.values(keyOf(item)));
const itemHref = (item) => `${BASE}/item?${query(keyOf(item))}`;
const fileHref = (src) => (src && !/^https?:/.test(src) ? `${BASE}/${src}` : src);

function duration(seconds) {
  if (seconds === null || seconds === undefined) return null;
  const whole = Math.round(seconds);
  if (whole < 60) return `${whole} s`;
  if (whole < 3600) return `${Math.floor(whole / 60)} min ${whole % 60} s`;
  return `${Math.floor(whole / 3600)} h ${Math.floor((whole % 3600) / 60)} min`;
}

function age(time) {
  if (!time) return null;
  const seconds = (Date.now() - Date.parse(time)) / 1000;
  if (!(seconds >= 0)) return null;
  if (seconds < 90) return "just now";
  if (seconds < 5400) return `${Math.round(seconds / 60)} min ago`;
  if (seconds < 129600) return `${Math.round(seconds / 3600)} h ago`;
  return `${Math.round(seconds / 86400)} days ago`;
}

function size(bytes) {
  if (!bytes) return null;
  const units = ["B", "KiB", "MiB", "GiB"];
  let value = bytes;
  let unit = 0;
  while (value >= 1024 && unit < 3) { value /= 1024; unit += 1; }
  return `${value < 10 && unit ? value.toFixed(1) : Math.round(value)} ${units[unit]}`;
}

function plain(amount) {
  return /\./.test(amount) ? amount.replace(/(\.\d\d\d*?)0+$/, "$1") : amount;
}

function price(cost) {
  if (!cost) return null;
  if (cost.amount) return `${plain(cost.amount)} ${cost.unit}`;
  return cost.estimated ? `about ${plain(cost.estimated)} ${cost.unit}` : null;
}

const spentText = (spent) => spent.map((one) => `${plain(one.amount)} ${one.unit}`).join(" + ");

function copyButton(label, text) {
  return el("button", {
    type: "button",
    onclick: async (event) => {
      const button = event.currentTarget;
      try {
        await navigator.clipboard.writeText(text);
      } catch {
        const area = el("textarea", { class: "visually-hidden", text });
        document.body.append(area);
        area.select();
        document.execCommand("copy");
        area.remove();
      }
      button.textContent = "Copied";
      say(`${label}: copied`);
      setTimeout(() => { button.textContent = label; }, 1500);
    },
  }, label);
}

// Light or dark, as the rest of Airflow is at the moment.

function followTheme() {
  let theme = null;
  try { theme = localStorage.getItem("theme"); } catch { /* no storage: the system decides */ }
  theme = theme ? theme.replaceAll('"', "") : "system";
  const dark = theme === "dark" || (theme !== "light" && matchMedia("(prefers-color-scheme: dark)").matches);
  document.documentElement.dataset.theme = dark ? "dark" : "light";
}
followTheme();
addEventListener("storage", followTheme);
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", followTheme);
try {
  if (parent !== window) {
    new MutationObserver(followTheme).observe(parent.document.documentElement, { attributes: true });
  }
} catch { /* framed by another origin, which the policy forbids */ }

// Media.

const seen = new IntersectionObserver((entries) => {
  for (const entry of entries) {
    if (!entry.isIntersecting) continue;
    seen.unobserve(entry.target);
    entry.target.dispatchEvent(new Event("seen"));
  }
}, { rootMargin: "300px" });

function whenSeen(node, act) {
  node.addEventListener("seen", act, { once: true });
  seen.observe(node);
}

function gone(file) {
  const text = file.expired || !file.src ? "The provider has deleted this file, and it was not landed." : "This file cannot be shown.";
  return el("p", { class: "note" }, el("b", { text: "Not available" }), text);
}

async function drawWave(canvas, src) {
  const width = (canvas.width = canvas.clientWidth * 2);
  const height = (canvas.height = canvas.clientHeight * 2);
  try {
    const bytes = await (await fetch(src, { credentials: "same-origin" })).arrayBuffer();
    const audio = new OfflineAudioContext(1, 1, 22050);
    const samples = (await audio.decodeAudioData(bytes)).getChannelData(0);
    const pen = canvas.getContext("2d");
    pen.fillStyle = getComputedStyle(canvas).color;
    const bars = Math.floor(width / 8);
    for (let bar = 0; bar < bars; bar += 1) {
      let loudest = 0.02;
      const from = Math.floor((bar * samples.length) / bars);
      const to = Math.floor(((bar + 1) * samples.length) / bars);
      for (let at = from; at < to; at += 16) loudest = Math.max(loudest, Math.abs(samples[at]));
      const tall = loudest * height * 0.95;
      pen.fillRect(bar * 8, (height - tall) / 2, 5, tall);
    }
  } catch {
    canvas.remove();
  }
}

function kindOf(file) {
  const type = file.content_type || "";
  for (const kind of ["image", "video", "audio"]) if (type.startsWith(`${kind}/`) || file.kind === kind) return kind;
  return file.kind === "thumbnail" ? "image" : "file";
}

function player(file, label, big) {
  const src = fileHref(file.src);
  if (!src) return gone(file);
  const kind = kindOf(file);
  const fail = (event) => event.currentTarget.replaceWith(gone(file));
  if (kind === "image") {
    return el("img", { src, alt: label, loading: big ? null : "lazy", decoding: "async", onerror: fail });
  }
  if (kind === "video") {
    const video = el("video", { "aria-label": label, preload: big ? "metadata" : "none", playsinline: "", controls: big || null, onerror: fail });
    video.muted = !big;
    video.loop = !big;
    if (big) video.src = src;
    else whenSeen(video, () => { video.preload = "metadata"; video.src = src; });
    return video;
  }
  if (kind === "audio") {
    const audio = el("audio", { src, controls: true, preload: "none", class: "over", "aria-label": label });
    const canvas = file.landed && (file.size || 0) < 20e6 ? el("canvas", { "aria-hidden": "true" }) : null;
    if (canvas) whenSeen(canvas, () => drawWave(canvas, src));
    return el("div", { class: "sound" }, canvas, audio);
  }
  return el("p", { class: "note" }, el("a", { href: src, class: "over", download: "" }, "Download this file"));
}

// Cards.

function firstFile(item) {
  const good = item.files.filter((file) => file.kind !== "thumbnail" && !file.watermarked);
  return good[0] || item.files[0];
}

function elapsed(item) {
  const since = item.submitted_at || item.started_at;
  return since ? Math.max((Date.now() - Date.parse(since)) / 1000, 0) : null;
}

function waitingNote(item) {
  const gone = elapsed(item);
  const usual = item.expected_seconds;
  const share = item.progress ?? (usual && gone !== null ? Math.min(gone / usual, 0.97) : null);
  const bar = el("progress", { max: "1", "aria-label": "Progress" });
  if (share !== null) bar.value = share;
  const words = item.status === "queued" && !item.media_task_id ? "Waiting for its turn" : item.status === "queued" ? "Queued" : "Being made";
  return el("div", { class: "note" }, el("b", { text: words }), bar,
    el("span", { text: gone === null ? "" : `${duration(gone)}${usual ? ` of about ${duration(usual)}` : ""}` }));
}

function stage(item) {
  const box = el("div", { class: "stage" });
  const label = item.prompt || item.operation || item.kind;
  if (item.batch) {
    const failed = item.batch.failed ? `, ${item.batch.failed} failed` : "";
    box.append(el("div", { class: "note" }, el("b", { text: `${item.batch.succeeded} of ${item.batch.total}` }), `in one batch${failed}`));
  } else if (item.status === "succeeded" && item.files.length) {
    const file = firstFile(item);
    box.append(player(file, label, false));
    if (kindOf(file) === "video" && file.duration) box.append(el("span", { class: "mark", text: duration(file.duration) }));
    const count = item.files.filter((one) => one.kind !== "thumbnail").length;
    if (count > 1) box.append(el("span", { class: "mark left", text: `${count} files` }));
  } else if (item.status === "succeeded") {
    box.append(el("p", { class: "note" }, el("b", { text: "No files" })));
  } else if (item.status === "failed" || item.status === "unknown") {
    const error = item.error || {};
    box.append(el("div", { class: `note ${item.status === "unknown" ? "ask" : "bad"}` },
      el("b", { text: item.status === "unknown" ? "Was it accepted?" : error.type || "Failed" }),
      el("span", { class: "words", text: item.status === "unknown" ? error.advice : error.message || "Its log says why." })));
  } else {
    box.append(waitingNote(item));
  }
  return box;
}

function card(item) {
  const label = item.prompt || (item.batch ? `${item.task_id}: a batch of ${item.batch.total}` : item.operation || item.task_id);
  const facts = [item.provider, item.model, item.seconds === null ? null : duration(item.seconds), price(item.cost), age(item.finished_at || item.submitted_at || item.started_at)];
  const where = [item.dag_id, item.name || (item.map_index >= 0 ? `${item.task_id} [${item.map_index}]` : item.task_id)];
  const node = el("li", { class: "card" },
    stage(item),
    el("div", { class: "caption" },
      el("p", { class: "prompt" }, el("a", { href: itemHref(item), onclick: (event) => go(event, itemHref(item)), text: label })),
      el("p", { class: "facts" },
        el("span", { class: `chip ${item.status}`, text: item.batch ? "batch" : item.status }),
        facts.filter(Boolean).map((fact) => el("span", { text: fact }))),
      el("p", { class: "where" }, item.number === undefined
        ? el("a", { class: "over", href: AIRFLOW + item.links.task, target: "_top", text: where.join(" / ") })
        : `request ${item.number}`)));
  node.dataset.name = nameOf(item);
  const video = node.querySelector("video");
  if (video && !matchMedia("(prefers-reduced-motion: reduce)").matches) {
    const start = () => { if (!video.src) video.dispatchEvent(new Event("seen")); video.play().catch(() => {}); };
    const stop = () => video.pause();
    node.addEventListener("mouseenter", start);
    node.addEventListener("focusin", start);
    node.addEventListener("mouseleave", stop);
    node.addEventListener("focusout", stop);
  }
  return node;
}

// The grid.

let list = { items: [], cursor: null, next: null, lookedBackTo: null };
let grid = null;
let visit = 0;

function filtersNow() {
  const params = new URLSearchParams(location.search);
  return Object.fromEntries(FILTERS.map((name) => [name, params.get(name) || ""]));
}

function select(name, label, values, current) {
  return el("select", { name, "aria-label": label },
    [["", label], ...values].map(([value, text]) => el("option", { value, selected: value === current, text })));
}

function filterForm(filters) {
  const since = filters.since ? [[filters.since, `since ${new Date(filters.since).toLocaleDateString()}`]] : [];
  const midnight = new Date(); midnight.setHours(0, 0, 0, 0);
  const form = el("form", { class: "filters", role: "search", "aria-label": "Filter the media" },
    el("input", { type: "search", name: "q", placeholder: "Search prompts", "aria-label": "Search prompts", value: filters.q }),
    el("input", { class: "narrow", name: "dag_id", placeholder: "DAG", "aria-label": "DAG", value: filters.dag_id }),
    el("input", { class: "narrow", name: "run_id", placeholder: "Run", "aria-label": "Run, of the DAG named", value: filters.run_id }),
    select("provider", "Provider", ["vap", "acedata", "kling"].map((one) => [one, one]), filters.provider),
    select("kind", "Kind", ["image", "video", "audio", "batch"].map((one) => [one, one]), filters.kind),
    select("status", "Status", ["running", "succeeded", "failed", "unknown"].map((one) => [one, one]), filters.status),
    select("since", "Any time", [...since, [midnight.toISOString(), "today"], [new Date(Date.now() - 7 * DAY).toISOString(), "last 7 days"], [new Date(Date.now() - 30 * DAY).toISOString(), "last 30 days"]], filters.since),
    el("button", { type: "submit", text: "Show" }),
    FILTERS.some((name) => filters[name]) ? el("button", { type: "button", class: "quiet", onclick: () => go(null, `${BASE}/`), text: "Clear" }) : null);
  const apply = () => {
    const chosen = { ...filters, ...Object.fromEntries(new FormData(form)) };
    go(null, `${BASE}/?${query(chosen)}`);
  };
  form.addEventListener("submit", (event) => { event.preventDefault(); apply(); });
  for (const node of form.querySelectorAll("select")) node.addEventListener("change", apply);
  return form;
}

function showTotals(totals, box) {
  const share = totals.success_rate === null ? null : `${Math.round(totals.success_rate * 100)}%`;
  const more = totals.complete ? "" : "+";
  const parts = [
    [`${totals.made}${more}`, "made"],
    totals.running ? [`${totals.running}`, "under way"] : null,
    totals.failed ? [`${totals.failed}${more}`, "failed"] : null,
    share ? [share, "succeeded"] : null,
    totals.median_seconds === null ? null : [duration(totals.median_seconds), "median"],
    totals.spent.length ? [spentText(totals.spent) + more, "spent"] : null,
    totals.spent_today.length ? [spentText(totals.spent_today), "today"] : null,
    ...(totals.by_provider.length > 1 ? totals.by_provider.filter((one) => one.made).map((one) => [`${one.made}`, `${one.provider}${one.spent.length ? ` (${spentText(one.spent)})` : ""}`]) : []),
  ];
  box.replaceChildren(...parts.filter(Boolean).map(([value, label]) => el("span", {}, el("strong", { text: value }), ` ${label}`)));
}

function emptyState(filters) {
  if (FILTERS.some((name) => filters[name])) {
    return el("div", { class: "empty" }, el("h2", { text: "Nothing matches" }), el("p", { text: "No media with these filters, as far back as was looked." }));
  }
  const code = 'from airflow.sdk import dag\nfrom airflow_media_tasks.operators import GenerateVideoOperator\n\n@dag(schedule=None)\ndef first_video():\n    GenerateVideoOperator(task_id="video", media_conn_id="kling_default", prompt="A fox in the snow")\n\nfirst_video()';
  return el("div", { class: "empty" }, el("h2", { text: "No media yet" }),
    el("p", { text: "What your DAGs generate appears here: pictures, videos and sound, what they cost and where they come from. A first one:" }), el("pre", { text: code }));
}

function trouble(error) {
  return el("p", { class: "trouble", role: "alert", text: error.message });
}

const fetchPage = (filters, cursor) => ask(`api/items?${query({ ...filters, cursor })}`);

async function showGrid() {
  const mine = ++visit;
  const filters = filtersNow();
  const totalsBox = el("p", { class: "totals" });
  head.replaceChildren(el("div", { class: "bar" }, el("h1", { text: filters.run_id ? "Media of this run" : "Media" }), totalsBox), filterForm(filters));
  main.replaceChildren(el("p", { class: "hint", text: "Loading" }));
  document.title = "Media";
  list = { items: [], cursor: null, next: null, lookedBackTo: null };
  grid = el("ul", { class: "grid", "aria-label": "Media, newest first" });
  const more = el("div", { class: "more" });
  const append = (page) => {
    for (const item of page.items) grid.append(card(item));
    list.items.push(...page.items);
    list.cursor = page.cursor;
    list.lookedBackTo = page.looked_back_to;
    list.next = null;
    const on = () => nextPage();
    more.replaceChildren();
    if (page.cursor) {
      const to = page.looked_back_to ? ` Looked back to ${new Date(page.looked_back_to).toLocaleString()}.` : "";
      more.append(el("button", { type: "button", onclick: on, text: "Show more" }), el("span", { text: to }));
      list.next = fetchPage(filters, page.cursor).catch((error) => error);
    }
  };
  let busy = false;
  const nextPage = async () => {
    if (busy || !list.next) return;
    busy = true;
    const page = await list.next;
    busy = false;
    if (mine !== visit) return;
    if (page instanceof Error) more.replaceChildren(trouble(page));
    else append(page);
  };
  try {
    const page = await fetchPage(filters, "");
    if (mine !== visit) return;
    append(page);
    let looks = 0;
    while (!list.items.length && list.next && looks < 20) { looks += 1; await nextPage(); }
    main.replaceChildren(list.items.length ? grid : emptyState(filters), more);
    say(`${list.items.length} shown`);
    new IntersectionObserver((entries) => { if (entries.some((entry) => entry.isIntersecting)) nextPage(); }, { rootMargin: "600px" }).observe(more);
  } catch (error) {
    if (mine === visit) main.replaceChildren(trouble(error));
    return;
  }
  const refreshTotals = () => ask(`api/totals?${query(filters)}`).then((totals) => { if (mine === visit) showTotals(totals, totalsBox); }).catch(() => {});
  refreshTotals();
  keepFresh(mine, refreshTotals);
}

function keepFresh(mine, refreshTotals) {
  const timer = setInterval(async () => {
    if (mine !== visit) { clearInterval(timer); return; }
    if (document.hidden) return;
    const running = list.items.filter((item) => item.status === "running" || item.status === "queued").slice(0, 30);
    if (!running.length) return;
    const fresh = await Promise.all(running.map((item) => ask(`api/item?${query(keyOf(item))}`).catch(() => null)));
    if (mine !== visit) return;
    let ended = 0;
    for (const item of fresh) {
      if (!item) continue;
      const place = list.items.findIndex((old) => nameOf(old) === nameOf(item));
      const node = [...grid.children].find((one) => one.dataset.name === nameOf(item));
      if (place < 0 || !node) continue;
      const before = list.items[place].status;
      list.items[place] = item;
      if (item.status === before && item.status !== "running" && item.status !== "queued") continue;
      const focused = node.contains(document.activeElement);
      const renewed = card(item);
      node.replaceWith(renewed);
      if (focused) renewed.querySelector("a").focus();
      if (item.status !== before && item.status !== "running") { ended += 1; say(`${item.prompt || item.task_id}: ${item.status}`); }
    }
    if (ended) refreshTotals();
  }, REFRESH);
}

// The detail.

function facts(pairs) {
  return el("dl", {}, pairs.filter(([, value]) => value !== null && value !== undefined && value !== "").flatMap(([name, value]) => [
    el("dt", { text: name }), value instanceof Node ? el("dd", {}, value) : el("dd", { text: String(value) })]));
}

function fileFigure(file, label) {
  const shape = file.width && file.height ? `${file.width} × ${file.height} px` : null;
  const lines = [file.content_type || file.kind, shape, file.duration ? duration(file.duration) : null, size(file.size), file.watermarked ? "watermarked" : null, file.landed ? "landed" : null];
  const expiry = !file.landed && file.expires_at ? `${file.expired ? "expired" : "expires"} ${new Date(file.expires_at).toLocaleString()}` : null;
  return el("figure", {}, player(file, label, true), el("figcaption", {},
    lines.concat(expiry).filter(Boolean).map((text) => el("span", { text })),
    file.src ? el("a", { href: fileHref(file.src), download: "", target: "_blank", rel: "noopener noreferrer", text: "Download" }) : null,
    file.path ? el("span", { class: "path mono", text: file.path }) : null,
    file.sha256 ? el("span", { class: "path mono", text: `sha256 ${file.sha256}` }) : null));
}

async function act(what, item, extra, box) {
  box.replaceChildren(el("p", { text: "Writing it down" }));
  try {
    const body = JSON.stringify({ ...keyOf(item), ...extra });
    await ask(`api/${what}`, { method: "POST", body, headers: { "Content-Type": "application/json", "X-Media-Tasks": "1" } });
    box.replaceChildren(el("p", {}, el("strong", { text: "Done. The task was cleared and goes on." })));
    say("Done. The task was cleared and goes on.");
    setTimeout(() => route(), 2500);
  } catch (error) {
    box.replaceChildren(trouble(error));
  }
}

function question(item) {
  const box = el("section", { class: "box ask", "aria-label": "Was it accepted?" });
  const draw = () => {
    const sure = (words, run) => {
      const yes = el("button", { type: "button", class: "primary", onclick: run, text: "Yes" });
      box.replaceChildren(el("p", {}, el("strong", { text: words })), el("div", { class: "tools" }, yes, el("button", { type: "button", onclick: draw, text: "No" })));
      yes.focus();
    };
    const lines = item.candidates.map((one) => el("li", {},
      el("span", { class: "what" }, el("span", { class: "mono", text: one.id }), el("br"), `${one.status || ""} ${one.created_at ? new Date(one.created_at).toLocaleString() : ""} ${one.prompt || ""}`),
      item.can_edit ? el("button", { type: "button", onclick: () => sure(`It became ${one.id}?`, () => act("adopt", item, { media_task_id: one.id }, box)), text: "Adopt" }) : null));
    const own = el("input", { class: "narrow", "aria-label": "Another id to adopt", placeholder: "media_task_id" });
    box.replaceChildren(
      el("strong", { text: "A submission was sent, and nobody knows whether it was accepted." }),
      el("p", { text: item.candidates.length ? "If it is one of these tasks of the account, adopt it: nothing is paid again." : "The account shows no task since then that it could be." }),
      lines.length ? el("ul", { class: "candidates" }, lines) : "",
      item.can_edit ? el("div", { class: "tools" }, own,
        el("button", { type: "button", onclick: () => { if (own.value.trim()) sure(`It became ${own.value.trim()}?`, () => act("adopt", item, { media_task_id: own.value.trim() }, box)); else own.focus(); }, text: "Adopt this id" }),
        el("button", { type: "button", onclick: () => sure("Submit it anew? That is paid, perhaps a second time.", () => act("resubmit", item, {}, box)), text: "Submit anew" }))
        : el("p", { text: "To answer, ask somebody who may edit this DAG's tasks." }));
  };
  draw();
  return box;
}

function errorBox(item) {
  const error = item.error;
  return el("section", { class: "box bad", "aria-label": "What went wrong" }, el("strong", { text: error.type }),
    el("p", { class: "words", text: error.message }), error.advice ? el("p", { text: error.advice }) : null);
}

function values(object) {
  return facts(Object.entries(object || {}).map(([name, value]) => [name, typeof value === "string" ? value : JSON.stringify(value)]));
}

async function showDetail() {
  const mine = ++visit;
  const params = new URLSearchParams(location.search);
  // Where a task is not mapped, Airflow leaves its placeholder as it is.
  if (!/^-?\d+$/.test(params.get("map_index"))) params.set("map_index", "-1");
  const inList = list.items.findIndex((item) => query(keyOf(item)) === params.toString());
  const neighbour = (step) => list.items[inList + step];
  const move = (step) => { if (inList >= 0 && neighbour(step)) go(null, itemHref(neighbour(step)), true); };
  const back = () => { if (inList >= 0 && cameFromGrid) history.back(); else go(null, `${BASE}/`); };
  head.replaceChildren(el("div", { class: "tools" },
    el("button", { type: "button", onclick: back, text: inList >= 0 ? "Back" : "All media" }),
    el("h1", { class: "visually-hidden", text: "Media of one task" }), el("span", { class: "space" }),
    inList > 0 ? el("button", { type: "button", onclick: () => move(-1), "aria-keyshortcuts": "ArrowLeft", text: "Previous" }) : null,
    inList >= 0 && neighbour(1) ? el("button", { type: "button", onclick: () => move(1), "aria-keyshortcuts": "ArrowRight", text: "Next" }) : null));
  keys = { ArrowLeft: () => move(-1), ArrowRight: () => move(1), Escape: back };
  if (!main.querySelector(".detail")) main.replaceChildren(el("p", { class: "hint", text: "Loading" }));
  let item;
  try {
    item = await ask(`api/item?${params}`);
  } catch (error) {
    if (mine === visit) {
      const none = error.message.startsWith("404");
      main.replaceChildren(none ? el("div", { class: "empty" }, el("h2", { text: "No media here" }), el("p", { text: "This task has not generated anything." })) : trouble(error));
    }
    return;
  }
  if (mine !== visit) return;
  const label = item.prompt || item.operation || item.task_id;
  document.title = label.slice(0, 80);
  const media = el("div", { class: "files" });
  if (item.batch) {
    const requests = el("ul", { class: "grid", "aria-label": "Requests of the batch" }, (item.batch.items || []).map(card));
    const more = el("div", { class: "more" });
    let offset = (item.batch.items || []).length;
    const next = async () => {
      const page = await ask(`api/item?${params}&offset=${offset}`).catch(() => null);
      const found = page && page.batch ? page.batch.items || [] : [];
      offset += found.length;
      requests.append(...found.map(card));
      if (!found.length || offset >= item.batch.total) more.remove();
    };
    if (offset && offset < item.batch.total) more.append(el("button", { type: "button", onclick: next, text: "Show more" }));
    media.append(offset ? requests : el("p", { class: "hint", text: "The file of results cannot be read." }), more);
  } else if (item.files.length) {
    media.append(...item.files.map((file) => fileFigure(file, label)));
  } else {
    media.append(el("figure", {}, stage(item).firstChild));
  }
  const links = el("span", {}, el("a", { href: AIRFLOW + item.links.task, target: "_top", text: `${item.task_id}${item.map_index >= 0 ? ` [${item.map_index}]` : ""}` }));
  const side = el("div", { class: "side" },
    el("div", {}, el("span", { class: `chip ${item.status}`, text: item.status }), el("h2", { text: label })),
    item.status === "unknown" ? question(item) : item.error ? errorBox(item) : null,
    el("section", {}, el("h3", { text: "How it was made" }), facts([
      ["provider", item.provider], ["model", item.model], ["operation", item.operation], ["cost", price(item.cost)],
      ["took", duration(item.seconds)], ["submitted", item.submitted_at && new Date(item.submitted_at).toLocaleString()],
      ["finished", item.finished_at && new Date(item.finished_at).toLocaleString()],
      ["media_task_id", item.media_task_id && el("span", { class: "mono", text: item.media_task_id })], ["connection", item.media_conn_id],
      ["batch", item.batch && `${item.batch.succeeded} of ${item.batch.total} succeeded`], ["results", item.batch && item.batch.results]])),
    el("section", {}, el("h3", { text: "Where" }), facts([
      ["DAG", el("a", { href: AIRFLOW + item.links.dag, target: "_top", text: item.dag_id })],
      ["run", el("a", { href: AIRFLOW + item.links.run, target: "_top", text: item.run_id })],
      ["task", links], ["try", item.try_number], ["request", item.number === undefined ? null : item.number]])),
    Object.keys(item.arguments || {}).length ? el("section", {}, el("h3", { text: "Arguments" }), values(item.arguments)) : null,
    el("div", { class: "tools" }, item.media_task_id ? copyButton("Copy id", item.media_task_id) : null,
      item.reference ? copyButton("Copy reference for a DAG", item.reference) : null,
      item.links.console ? el("a", { href: item.links.console, target: "_blank", rel: "noopener noreferrer", text: "Provider's console" }) : null));
  main.replaceChildren(el("div", { class: "detail" }, media, side));
  say(label);
  if (item.status === "running" || item.status === "queued") {
    setTimeout(() => { if (mine === visit && !document.hidden) showDetail(); }, REFRESH);
  }
}

// Where we are.

let keys = {};
let cameFromGrid = false;

function go(event, href, replace) {
  if (event && (event.ctrlKey || event.metaKey || event.shiftKey || event.button)) return;
  if (event) event.preventDefault();
  cameFromGrid = !replace || cameFromGrid;
  history[replace ? "replaceState" : "pushState"](null, "", href);
  route();
  if (!replace) { scrollTo(0, 0); main.focus({ preventScroll: true }); }
}

function route() {
  keys = { "/": () => document.querySelector("input[type=search]")?.focus() };
  if (new URL(location).pathname.endsWith("/item")) showDetail();
  else showGrid();
}

// Airflow frames the page without leave to open windows or to navigate Airflow itself: a link that does so is
// followed from Airflow's own document, which is of the same origin.
addEventListener("click", (event) => {
  const link = event.target.closest("a[target]");
  if (!link || parent === window || event.defaultPrevented) return;
  if (link.hasAttribute("download") && link.origin === location.origin) return;
  event.preventDefault();
  const twin = parent.document.createElement("a");
  Object.assign(twin, { href: link.href, target: link.target, rel: link.rel });
  twin.click();
});
addEventListener("popstate", route);
addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey || /^(INPUT|SELECT|TEXTAREA|VIDEO|AUDIO)$/.test(event.target.tagName)) return;
  const act = keys[event.key];
  if (act) { event.preventDefault(); act(); }
});
route();
