// Numbers and moments as people read them.

export function duration(seconds) {
  if (seconds === null || seconds === undefined) return null;
  const whole = Math.round(seconds);
  if (whole < 60) return `${whole} s`;
  if (whole < 3600) return whole % 60 ? `${Math.floor(whole / 60)} min ${whole % 60} s` : `${whole / 60} min`;
  return `${Math.floor(whole / 3600)} h ${Math.floor((whole % 3600) / 60)} min`;
}

export function age(time) {
  if (!time) return null;
  const seconds = (Date.now() - Date.parse(time)) / 1000;
  if (!(seconds >= 0)) return null;
  if (seconds < 90) return "just now";
  if (seconds < 5400) return `${Math.round(seconds / 60)} min ago`;
  if (seconds < 129600) return `${Math.round(seconds / 3600)} h ago`;
  return `${Math.round(seconds / 86400)} days ago`;
}

// In the time zone that is chosen in Airflow, and in its form.
export function moment(time) {
  if (!time) return null;
  if (Number.isNaN(Date.parse(time))) return String(time);
  let zone;
  try { zone = (localStorage.getItem("timezone") || "").replaceAll('"', "") || undefined; } catch { /* no storage */ }
  if (zone === "local") zone = undefined;
  const parts = { year: "numeric", month: "2-digit", day: "2-digit", hour: "2-digit", minute: "2-digit", second: "2-digit", hourCycle: "h23" };
  let format;
  try { format = new Intl.DateTimeFormat("sv-SE", { ...parts, timeZone: zone }); } catch { format = new Intl.DateTimeFormat("sv-SE", parts); }
  return format.format(new Date(time));
}

export function size(bytes) {
  if (!bytes) return null;
  const units = ["B", "KiB", "MiB", "GiB"];
  let value = bytes;
  let unit = 0;
  while (value >= 1024 && unit < 3) { value /= 1024; unit += 1; }
  return `${value < 10 && unit ? value.toFixed(1) : Math.round(value)} ${units[unit]}`;
}

// Without the noughts at the end, but with cents.
function plain(amount) {
  const text = String(amount);
  return /\.\d/.test(text) ? text.replace(/(\.\d\d\d*?)0+$/, "$1") : text;
}

function money({ amount, unit }) {
  return `${plain(amount)} ${plain(amount) === "1" ? String(unit).replace(/^(unit|credit)s$/, "$1") : unit}`;
}

export function price(cost) {
  if (!cost) return null;
  if (cost.amount) return money(cost);
  return cost.estimated ? `about ${money({ amount: cost.estimated, unit: cost.unit })}` : null;
}

// What was charged, then what by the price table the rest has cost, each a text; *more* goes behind each.
export const sums = (charged, estimated, more = "") => [...charged.map(money), ...estimated.map((one) => `about ${money(one)}`)].map((text) => text + more);
