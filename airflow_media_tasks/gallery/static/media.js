// Players of what was made, and what stands in their place.

import { BASE, el, symbol } from "./elements.js";

export const fileHref = (src) => (src && !/^https?:/.test(src) ? `${BASE}/${src}` : src);

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
  const text = file.why || (file.expired || !file.src ? "The provider has deleted this file, and it was not landed." : "This file cannot be shown.");
  return el("div", { class: "note" }, symbol("gone"), el("b", { text: "Not available" }), el("p", { class: "words", text }));
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
    const loud = Array.from({ length: bars }, (_, bar) => {
      let most = 0;
      const to = Math.floor(((bar + 1) * samples.length) / bars);
      for (let at = Math.floor((bar * samples.length) / bars); at < to; at += 4) most = Math.max(most, Math.abs(samples[at]));
      return most;
    });
    const top = Math.max(...loud, 0.01);
    loud.forEach((one, bar) => {
      const tall = Math.max(one / top, 0.04) * height * 0.92;
      pen.beginPath();
      pen.roundRect(bar * 8, (height - tall) / 2, 5, tall, 2.5);
      pen.fill();
    });
  } catch {
    canvas.remove();
  }
}

export function kindOf(file) {
  const type = file.content_type || "";
  for (const kind of ["image", "video", "audio"]) if (type.startsWith(`${kind}/`) || file.kind === kind) return kind;
  return file.kind === "thumbnail" ? "image" : "file";
}

export function player(file, label, big) {
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
    const audio = el("audio", { src, controls: true, preload: big ? "metadata" : "none", class: "over", "aria-label": label });
    const canvas = file.landed && (file.size || 0) < 20e6 ? el("canvas", { "aria-hidden": "true" }) : null;
    if (canvas) whenSeen(canvas, () => drawWave(canvas, src));
    return el("div", { class: "sound" }, canvas || symbol("audio"), audio);
  }
  return el("p", { class: "note" }, symbol("file"), el("a", { href: src, class: "over", download: "" }, "Download this file"));
}

// Plays while the pointer or the focus is on the card; *start* also where its film has not been asked for yet.
export function playOnHover(card) {
  const video = card.querySelector("video");
  if (!video || matchMedia("(prefers-reduced-motion: reduce)").matches) return;
  const start = () => { if (!video.src) video.dispatchEvent(new Event("seen")); video.play().catch(() => {}); };
  const stop = () => video.pause();
  card.addEventListener("mouseenter", start);
  card.addEventListener("focusin", start);
  card.addEventListener("mouseleave", stop);
  card.addEventListener("focusout", stop);
}
