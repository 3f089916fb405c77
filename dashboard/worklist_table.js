// The list of studies. All text is set as text, never as markup. Rows are drawn anew when data
// come; what is selected and how far one has scrolled stay.
const GLYPHS = {
  flagged: '<path d="M6.5 1 12.6 12H.4z" fill="currentColor"/>',
  not_flagged: '<circle cx="6.5" cy="6.5" r="5" fill="none" stroke="currentColor" stroke-width="1.4"/>',
  pending: '<circle cx="2" cy="6.5" r="1.4" fill="currentColor"/><circle cx="6.5" cy="6.5" r="1.4" fill="currentColor"/><circle cx="11" cy="6.5" r="1.4" fill="currentColor"/>',
  incomplete: '<path d="M2 2l9 9M11 2l-9 9" stroke="currentColor" stroke-width="1.7"/>',
  abstained: '<path d="M3.6 4.4a3 3 0 1 1 4.2 2.7c-.9.4-1.3.9-1.3 1.8M6.5 11v1.3" fill="none" stroke="currentColor" stroke-width="1.5"/>',
  not_eligible: '<circle cx="6.5" cy="6.5" r="5" fill="none" stroke="currentColor" stroke-width="1.4" stroke-dasharray="2 2"/><path d="M3 10l7-7" stroke="currentColor" stroke-width="1.4"/>',
};
const HEADS = ["Due", "AI", "Patient", "Study", "Why here", "State", "Waiting"];
const WIDTHS = ["11%", "12%", "16%", "18%", "23%", "12%", "8%"];

function span(ms) {
  const minutes = Math.floor(Math.abs(ms) / 60000);
  if (minutes < 1) return "< 1 min";
  if (minutes < 60) return `${minutes} min`;
  if (minutes < 2880) return `${Math.floor(minutes / 60)} h ${String(minutes % 60).padStart(2, "0")} min`;
  return `${Math.floor(minutes / 1440)} d ${Math.floor((minutes % 1440) / 60)} h`;
}

function line(parent, text, className = "") {
  const element = document.createElement("div");
  const words = document.createElement("bdi");
  words.textContent = text;
  element.className = className;
  element.title = text;
  element.append(words);
  parent.append(element);
  return element;
}

function outcome(cell, row) {
  const head = document.createElement("div");
  head.className = `outcome ${row.outcome}`;
  head.dataset.testid = "outcome";
  const glyph = document.createElementNS("http://www.w3.org/2000/svg", "svg");
  glyph.setAttribute("viewBox", "0 0 13 13");
  glyph.innerHTML = GLYPHS[row.outcome]; // ours, chosen by a name from our own list
  const word = document.createElement("span");
  word.textContent = row.outcome_text;
  head.append(glyph, word);
  cell.append(head);
  if (row.probability === null) {
    const none = document.createElement("div");
    none.className = "hatched";
    cell.append(none);
    return;
  }
  const value = document.createElement("span");
  value.className = "p";
  value.textContent = row.probability_text;
  head.append(value);
  const bar = document.createElement("div");
  bar.className = "bar";
  const filled = document.createElement("i");
  filled.style.width = `${100 * row.probability}%`;
  bar.append(filled);
  cell.append(bar);
}

function tick(state) {
  const now = state.data.as_of_ms + performance.now() - state.since;
  for (const { row, due, waiting } of state.clocks) {
    const left = row.due_ms - now;
    due.firstChild.textContent = left < 0 ? `${span(left)} overdue` : `in ${span(left)}`;
    due.classList.toggle("overdue", left < 0);
    if (waiting) waiting.firstChild.textContent = span(now - row.received_ms);
  }
}

function drawRow(state, row) {
  const element = document.createElement("tr");
  element.dataset.testid = "worklist-row";
  element.dataset.studyUid = row.uid;
  element.dataset.accession = row.accession;
  element.dataset.outcome = row.outcome;
  element.className = row.outcome === "flagged" ? "is-flagged" : "";
  const cells = HEADS.map(() => element.appendChild(document.createElement("td")));
  const due = line(cells[0], "");
  const when = line(cells[0], "", "under");
  if (row.band === 0) {
    const stat = document.createElement("span");
    stat.className = "stat";
    stat.textContent = row.band_text;
    when.replaceChildren(stat, ` ${row.due_text}`);
  } else when.textContent = `${row.band_text} · ${row.due_text}`;
  outcome(cells[1], row);
  line(cells[2], row.patient, "bright");
  line(cells[2], row.patient_line, "under");
  line(cells[3], row.study);
  line(cells[3], row.study_line, "under");
  cells[4].className = "why";
  line(cells[4], row.reason);
  line(cells[5], row.state_text, row.new_image ? "new" : row.mine ? "mine" : "");
  line(cells[5], row.final_text, "under");
  const waiting = line(cells[6], row.waiting_text);
  line(cells[6], row.received_text, "under");
  state.clocks.push({ row, due, waiting: row.waits ? waiting : null });
  element.addEventListener("click", () => select(state, row.uid));
  element.addEventListener("dblclick", () => open(state, row.uid));
  return element;
}

function draw(state) {
  const { data, frame } = state;
  const place = frame.scrollTop;
  const before = state.order ?? [];
  state.order = data.rows.map((row) => row.uid);
  if (!state.order.includes(state.selected)) {
    // What was selected has left: its neighbour takes its place.
    const index = Math.max(0, before.indexOf(state.selected));
    state.selected = state.order[Math.min(index, state.order.length - 1)];
  }
  state.clocks = [];
  const table = document.createElement("table");
  table.setAttribute("role", "grid");
  const head = table.createTHead().insertRow();
  HEADS.forEach((text, index) => {
    const cell = document.createElement("th");
    cell.textContent = text;
    cell.style.width = WIDTHS[index];
    head.append(cell);
  });
  const body = table.createTBody();
  body.append(...data.rows.map((row) => drawRow(state, row)));
  frame.replaceChildren(table);
  if (!data.rows.length) {
    const empty = document.createElement("div");
    empty.className = "empty";
    empty.dataset.testid = "worklist-empty";
    empty.textContent = data.empty_text;
    frame.append(empty);
  }
  mark(state);
  tick(state);
  frame.scrollTop = place;
}

function mark(state) {
  for (const row of state.frame.querySelectorAll("tbody tr")) {
    row.setAttribute("aria-selected", String(row.dataset.studyUid === state.selected));
  }
}

function select(state, uid, show = false) {
  state.selected = uid;
  mark(state);
  if (show) state.frame.querySelector('tr[aria-selected="true"]')?.scrollIntoView({ block: "nearest" });
}

function open(state, uid) {
  if (uid) state.setTriggerValue("open", uid);
}

function typing(event) {
  const target = event.composedPath()[0];
  return target instanceof Element && target.matches("input, textarea, select, [contenteditable=true]");
}

function press(state, event) {
  if (event.ctrlKey || event.metaKey || event.altKey || typing(event)) return;
  const index = state.order.indexOf(state.selected);
  const target = event.composedPath()[0];
  const elsewhere = target instanceof Element && target.closest("button, a");
  const key = event.key.length === 1 ? event.key.toLowerCase() : event.key;
  if (key === "j" || key === "ArrowDown") select(state, state.order[Math.min(index + 1, state.order.length - 1)], true);
  else if (key === "k" || key === "ArrowUp") select(state, state.order[Math.max(index - 1, 0)], true);
  else if ((key === "Enter" && !elsewhere) || key === "o") open(state, state.selected);
  else if (key === "c" && state.selected && state.data.claimable) state.setTriggerValue("claim", state.selected);
  else return;
  event.preventDefault();
  event.stopImmediatePropagation(); // Streamlit's own C would clear caches
}

export default function ({ data, parentElement, setTriggerValue }) {
  const first = !parentElement.firstread;
  const state = (parentElement.firstread ??= { selected: data.selected });
  if (state.data?.as_of_ms !== data.as_of_ms) state.since = performance.now();
  Object.assign(state, { data, setTriggerValue, frame: parentElement.querySelector(".frame") });
  const turned = state.page !== undefined && state.page !== data.page;
  state.page = data.page;
  draw(state);
  if (first) select(state, state.selected, true);
  if (turned) state.frame.scrollTop = 0;
  if (!state.stop) {
    const listen = (event) => press(state, event);
    window.addEventListener("keydown", listen, true);
    const timer = setInterval(() => tick(state), 5000);
    state.stop = () => {
      window.removeEventListener("keydown", listen, true);
      clearInterval(timer);
      state.stop = undefined;
    };
  }
  return state.stop;
}
