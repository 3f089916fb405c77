// One line that says how old the page is and what came last. It ticks by itself, on a clock that
// nobody sets, so that a page whose server is gone shows its age.
const STALE_AFTER_S = 20;

function span(seconds) {
  if (seconds < 60) return `${Math.floor(seconds)} s`;
  if (seconds < 3600) return `${Math.floor(seconds / 60)} min`;
  const minutes = Math.floor(seconds / 60);
  if (minutes < 2880) return `${Math.floor(minutes / 60)} h ${String(minutes % 60).padStart(2, "0")} min`;
  return `${Math.floor(minutes / 1440)} d`;
}

function part(line, text, kind, testid) {
  const element = document.createElement("span");
  element.textContent = text;
  element.className = kind;
  element.dataset.testid = testid;
  line.append(element);
}

function draw(state) {
  const { data, line } = state;
  const elapsed = (performance.now() - state.since) / 1000;
  line.replaceChildren();
  for (const item of data.items) part(line, item.text, item.strong ? "strong" : "", item.name);
  const quiet = data.received_s === null ? null : data.received_s + elapsed;
  if (quiet === null) part(line, "Nothing received yet", "warn", "received");
  else if (quiet >= data.quiet_after_s) part(line, `Nothing received for ${span(quiet)}`, "warn", "received");
  else part(line, `Last received ${data.received_at}`, "", "received");
  part(line, data.result.text, data.result.warn ? "warn" : "", "result");
  if (elapsed >= STALE_AFTER_S) part(line, `Not refreshed for ${span(elapsed)}: shown is ${data.as_of}`, "stale", "as-of");
  else part(line, `As of ${data.as_of} · ${span(elapsed)} ago`, "", "as-of");
}

export default function ({ data, parentElement }) {
  const state = (parentElement.firstread ??= {});
  if (state.data?.as_of_ms !== data.as_of_ms) state.since = performance.now();
  state.data = data;
  state.line = parentElement.querySelector(".line");
  draw(state);
  state.timer ??= setInterval(() => draw(state), 1000);
  return () => {
    clearInterval(state.timer);
    state.timer = undefined;
  };
}
