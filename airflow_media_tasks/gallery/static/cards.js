// A card of the grid.

import { AIRFLOW, BASE, el, query, symbol } from "./elements.js";
import { kindOf, playOnHover, player } from "./media.js";
import { age, duration, price, sums } from "./words.js";

export const keyOf = (item) => ({ dag_id: item.dag_id, run_id: item.run_id, task_id: item.task_id, map_index: item.map_index, region_id: item.region_id, region_index: item.region_index, number: item.number });
export const nameOf = (item) => JSON.stringify(Object.values(keyOf(item)));
export const itemHref = (item) => `${BASE}/item?${query(keyOf(item))}`;
export const taskOf = (item) => (item.map_index >= 0 ? `${item.task_id} [${item.map_index}]` : item.task_id);
// Which iteration of a task loop it is, counted from 0 as Airflow does.
export const iterationOf = (item) => (Number.isInteger(item.loop) ? `, iteration ${item.loop}` : "");
export const isUnderWay = (item) => item.status === "running" || item.status === "queued";

export function titleOf(item) {
  if (item.prompt) return item.prompt;
  if (item.batch) return `${item.task_id}: a batch of ${item.batch.total}`;
  return item.operation ? item.operation.replaceAll("_", " ") : item.number === undefined ? item.task_id : `${item.task_id}, request ${item.number}`;
}

export function chip(status, text) {
  return el("span", { class: `chip ${status}` }, symbol(status), el("span", { text: text || status }));
}

export function unreadableNote(item) {
  return el("div", { class: "note" }, symbol("unreadable"), el("b", { text: "Cannot be shown" }),
    el("p", { class: "words", text: "What this task has left is not what this package writes." }), el("p", { class: "words mono", text: item.unreadable }));
}

function firstFile(item) {
  const good = item.files.filter((file) => file.kind !== "thumbnail" && !file.watermarked);
  return good[0] || item.files[0];
}

function waitingNote(item) {
  const since = item.submitted_at || item.started_at;
  const gone = since ? Math.max((Date.now() - Date.parse(since)) / 1000, 0) : null;
  const usual = item.expected_seconds;
  const late = usual && gone > usual;
  const bar = el("progress", { max: "1", "aria-label": "Progress" });
  // A bar without a value moves: it goes on, and nobody can say how long.
  if (usual && gone !== null && !late) bar.value = gone / usual;
  const words = item.is_download ? "Landing" : item.status === "queued" ? (item.media_task_id ? "Queued at the provider" : "Waiting for its turn") : "Being made";
  const time = gone === null ? "" : late ? `${duration(gone)}; usual are ${duration(usual)}` : usual ? `${duration(gone)} of about ${duration(usual)}` : duration(gone);
  return el("div", { class: "note wide" }, symbol(item.status), el("b", { text: words }), bar, el("p", { text: time }));
}

function batchNote({ total, succeeded, failed, submitted }) {
  const space = "http://www.w3.org/2000/svg";
  const bar = document.createElementNS(space, "svg");
  bar.setAttribute("class", "shares");
  bar.setAttribute("aria-hidden", "true");
  let at = 0;
  for (const [name, count] of [["succeeded", succeeded], ["failed", failed]]) {
    const part = document.createElementNS(space, "rect");
    const share = total ? (100 * (count || 0)) / total : 0;
    for (const [key, value] of Object.entries({ class: name, x: `${at}%`, width: `${share}%`, height: "100%" })) part.setAttribute(key, value);
    at += share;
    bar.append(part);
  }
  const open = total - (succeeded || 0) - (failed || 0);
  const rest = [failed ? `${failed} failed` : null, open > 0 ? `${open} ${submitted < total ? "to come" : "open"}` : null].filter(Boolean);
  return el("div", { class: "note wide" }, symbol("batch"), el("b", { text: `${succeeded || 0} of ${total}` }), bar,
    el("p", { text: rest.join(", ") || "all of them made" }));
}

export function stage(item) {
  const box = el("div", { class: "stage" });
  if (item.status === "unreadable") {
    box.append(unreadableNote(item));
  } else if (item.batch) {
    box.append(batchNote(item.batch));
  } else if (item.status === "succeeded" && item.files.length) {
    const file = firstFile(item);
    box.append(player(file, titleOf(item), false));
    if (kindOf(file) === "video" && file.duration) box.append(el("span", { class: "mark", text: duration(file.duration) }));
    if (item.file_count > 1) box.append(el("span", { class: "mark left", text: `${item.file_count} files` }));
  } else if (item.status === "succeeded") {
    box.append(el("div", { class: "note" }, symbol("file"), el("b", { text: "No files" })));
  } else if (item.status === "unknown") {
    const count = item.candidates.length;
    const could = count ? `The account has ${count === 1 ? "a task" : `${count} tasks`} that it could have become.` : "The account shows no task that it could have become.";
    box.append(el("div", { class: "note ask" }, symbol("unknown"), el("b", { text: "Was it accepted?" }),
      el("p", { class: "words", text: item.can_edit ? `${could} Open it to answer.` : could })));
  } else if (item.status === "failed") {
    const error = item.error || {};
    box.append(el("div", { class: "note bad" }, symbol("failed"), el("b", { text: error.type || "Failed" }),
      el("p", { class: "words", text: error.message || item.notice || "Its log says why." }),
      error.advice ? el("p", { class: "advice", text: error.advice }) : null));
  } else {
    box.append(waitingNote(item));
  }
  return box;
}

export const costsOf = ({ batch, cost }) => (batch ? sums(batch.cost, batch.estimated) : [price(cost)]).filter(Boolean);

export function card(item, open) {
  const facts = [item.provider, item.model, item.seconds === null ? null : duration(item.seconds), ...costsOf(item)];
  const unchecked = item.files.map((file) => file.checked).find(Boolean);
  const where = [item.dag_id, item.name || taskOf(item)].join(" / ") + iterationOf(item);
  const when = age(item.finished_at || item.submitted_at || item.started_at);
  const href = itemHref(item);
  const node = el("li", { class: "card" },
    stage(item),
    item.status === "succeeded" && !item.batch ? null : chip(item.batch && item.status === "succeeded" ? "batch" : item.status),
    el("div", { class: "caption" },
      el("p", { class: "prompt" }, el("a", { href, onclick: (event) => open(event, href), text: titleOf(item) })),
      el("p", { class: "facts" }, facts.filter(Boolean).map((fact) => el("span", { text: fact })),
        unchecked ? el("span", { title: unchecked, text: "not checked" }) : null),
      el("p", { class: "where" }, item.number === undefined
        ? el("a", { class: "over", href: AIRFLOW + item.links.task, target: "_top", title: `${where}, ${item.run_id}`, text: where })
        : el("span", { title: item.run_id, text: `${where}, request ${item.number}` }), when ? el("span", { class: "when", text: when }) : null)));
  node.dataset.name = nameOf(item);
  playOnHover(node);
  return node;
}
