// Elements, symbols and requests. Everything that comes from a prompt or a provider is set as text, never as markup.

const meta = (name) => document.querySelector(`meta[name="${name}"]`).content;
export const BASE = meta("base");
export const AIRFLOW = meta("airflow");

export function el(tag, props, ...children) {
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

const DRAWINGS = {
  succeeded: "M5 12.5l4.5 4.5L19 7.5",
  failed: "M6.5 6.5l11 11M17.5 6.5l-11 11",
  running: "M12 7v5l3.5 2M12 3.5a8.5 8.5 0 1 0 0 17a8.5 8.5 0 1 0 0-17",
  queued: "M7 4h10M7 20h10M8 4c0 5 8 6 8 16M16 4c0 5-8 6-8 16",
  unknown: "M9 9.2a3 3 0 1 1 4.4 2.9c-1 .6-1.4 1.2-1.4 2.2M12 18v.2",
  batch: "M4 4h6.5v6.5H4zM13.5 4H20v6.5h-6.5zM4 13.5h6.5V20H4zM13.5 13.5H20V20h-6.5z",
  image: "M4 5h16v14H4zM4.5 17l5-5 3.5 3.5 3-3 3.5 3.5M9 9v.2",
  video: "M4 6h11v12H4zM15 10.5l5-3v9l-5-3",
  audio: "M4 10v4M8 7v10M12 4v16M16 8v8M20 10.5v3",
  file: "M6 3.5h8l4 4v13H6zM14 3.5v4h4",
  gone: "M4 5h16v14H4zM4 5l16 14",
  unreadable: "M6 3.5h8l4 4v13H6zM9.5 10.5l5 5M14.5 10.5l-5 5",
  back: "M14.5 5.5L8 12l6.5 6.5",
  next: "M9.5 5.5L16 12l-6.5 6.5",
  copy: "M8.5 8.5h11v11h-11zM15.5 5v-.5h-11v11H5",
  search: "M10.5 4a6.5 6.5 0 1 0 0 13a6.5 6.5 0 1 0 0-13M15.5 15.5L20 20",
  filters: "M4 7h16M7 12h10M10 17h4",
  download: "M12 4v11M7.5 11L12 15.5l4.5-4.5M5 20h14",
  out: "M14 4.5h5.5V10M19.5 4.5L11 13M10 6H5v13h13v-5",
};

export function symbol(name) {
  const space = "http://www.w3.org/2000/svg";
  const svg = document.createElementNS(space, "svg");
  const path = document.createElementNS(space, "path");
  for (const [key, value] of Object.entries({ viewBox: "0 0 24 24", class: "symbol", "aria-hidden": "true" })) svg.setAttribute(key, value);
  path.setAttribute("d", DRAWINGS[name] || DRAWINGS.file);
  svg.append(path);
  return svg;
}

export function button(props, name, text) {
  return el("button", { type: "button", ...props }, name ? symbol(name) : null, text ? el("span", { text }) : null);
}

// What a screen reader says next.
export function say(text) {
  document.getElementById("news").textContent = text;
}

export async function ask(path, options) {
  let reply;
  try {
    reply = await fetch(`${BASE}/${path}`, { credentials: "same-origin", ...options });
  } catch {
    throw new Error("Airflow's API server does not answer. Is it up, and are you online?");
  }
  if (reply.status === 401) throw new Error("You are logged out of Airflow: log in and load this page again.");
  const body = await reply.json().catch(() => ({}));
  if (!reply.ok) {
    const detail = typeof body.detail === "string" ? body.detail : JSON.stringify(body.detail || body.title || "");
    const words = reply.status === 403 ? `You may not do or see this in Airflow. ${detail}` : `${reply.status}: ${detail}`;
    throw Object.assign(new Error(words), { status: reply.status });
  }
  return body;
}

export function query(values) {
  const params = new URLSearchParams();
  for (const [name, value] of Object.entries(values)) {
    if (value !== "" && value !== null && value !== undefined) params.set(name, value);
  }
  return params.toString();
}

export function trouble(error, again) {
  return el("div", { class: "trouble", role: "alert" }, symbol("failed"), el("p", { text: error.message }),
    again ? button({ onclick: again }, null, "Try again") : null);
}

// What to set so that landed files are sent from where they are; *line* is of the API server's configuration.
export function rootsNote(line) {
  const text = `[media_tasks]\n${line}`;
  return el("section", { class: "box roots", "aria-label": "Landed files are not sent yet" },
    el("strong", { text: "Landed files are not sent yet" }),
    el("p", { text: "The API server sends files only from places that its configuration names, and it names none. Until then what you see comes from the providers, for as long as they keep it. What is here has landed below:" }),
    el("pre", { tabindex: "0", "aria-label": "What to set", text }),
    el("div", { class: "tools" }, copyButton("Copy these lines", text), el("small", { text: "Look at them first: they are made of what these tasks say. Then restart the API server." })));
}

export function copyButton(label, text) {
  const words = el("span", { text: label });
  const node = button({
    onclick: async () => {
      try {
        await navigator.clipboard.writeText(text);
      } catch {
        // A frame may not have the clipboard: the browser's older way, and if that fails too, the text to be copied by hand.
        const field = el("input", { class: "by-hand mono", readonly: "", "aria-label": `${label}: copy this text`, value: text });
        node.after(field);
        field.select();
        if (!document.execCommand("copy")) {
          say("Selected: copy it with the keyboard");
          field.addEventListener("blur", () => field.remove());
          return;
        }
        field.remove();
        node.focus();
      }
      words.textContent = "Copied";
      say(`${label}: copied`);
      setTimeout(() => { words.textContent = label; }, 1500);
    },
  }, "copy");
  node.append(words);
  return node;
}
