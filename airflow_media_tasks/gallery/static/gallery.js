// Where we are: the grid, or one item.

import { BASE } from "./elements.js";
import { Detail, batchHref } from "./detail.js";
import { Grid } from "./grid.js";

// Light or dark, as the rest of Airflow is at the moment.

function shellTheme() {
  try {
    const { classList } = parent.document.documentElement;
    for (const theme of ["dark", "light"]) if (parent !== window && classList.contains(theme)) return theme;
  } catch { /* framed by another origin, which the policy forbids */ }
  try {
    const chosen = (localStorage.getItem("theme") || "").replaceAll('"', "");
    if (chosen === "dark" || chosen === "light") return chosen;
  } catch { /* no storage: the system decides */ }
  return matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light";
}

function followTheme() {
  document.documentElement.dataset.theme = shellTheme();
}
followTheme();
addEventListener("storage", followTheme);
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", followTheme);
try {
  if (parent !== window) new MutationObserver(followTheme).observe(parent.document.documentElement, { attributes: true });
} catch { /* as above */ }

// What is in the page.

const head = document.getElementById("head");
const main = document.getElementById("main");
let current = null;
let grid = null; // the last one: what was opened from it goes back to it
let batch = null; // the last batch whose requests were shown
let steps = 0; // back in the history that are ours

function show(newHead, newMain) {
  if (!newHead.every((node) => node.parentNode === head)) head.replaceChildren(...newHead);
  if (newMain && !newMain.every((node) => node.parentNode === main)) main.replaceChildren(...newMain);
}

function go(event, href, replace) {
  if (event && (event.ctrlKey || event.metaKey || event.shiftKey || event.button)) return;
  if (event) event.preventDefault();
  if (!replace) steps += 1;
  history[replace ? "replaceState" : "pushState"]({ steps }, "", href);
  route(!replace);
}

function back() {
  const params = new URLSearchParams(location.search);
  if (steps > 0) history.back();
  else go(null, params.has("number") ? batchHref(params) : `${BASE}/`, true);
}

// *fresh*: by a link, so what is shown starts at its top; else by the history, so it is where it was.
function route(fresh) {
  if (current) current.leave();
  const params = new URLSearchParams(location.search);
  if (new URL(location).pathname.endsWith("/item")) {
    if (current instanceof Detail && current.requests) batch = current;
    // A search finds requests of batches, too, and so they are in the grid.
    const among = params.has("number") && !(grid && grid.holds(params)) ? batch && batch.requests : grid;
    current = new Detail(show, go, among, back);
    if (fresh) {
      scrollTo(0, 0);
      main.focus({ preventScroll: true });
    }
    current.load();
  } else if (!fresh && grid && grid.search === location.search) {
    const from = current;
    current = grid;
    grid.enter();
    const opened = from instanceof Detail && grid.items[from.place];
    if (opened) grid.focus(opened);
  } else {
    current = grid = new Grid(show, go);
    grid.load();
  }
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
addEventListener("popstate", (event) => {
  steps = event.state ? event.state.steps : 0;
  route(false);
});
addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey || /^(INPUT|SELECT|TEXTAREA|VIDEO|AUDIO)$/.test(event.target.tagName)) return;
  const act = event.key === "/" ? () => document.querySelector("input[type=search]")?.focus() : current.keys?.[event.key];
  if (act) { event.preventDefault(); act(); }
});
history.scrollRestoration = "manual";
route(false);
