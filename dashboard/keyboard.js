// Presses the page's own buttons by key. It listens before Streamlit does, whose C would clear
// caches, and stays silent while somebody types.
function typing(event) {
  const target = event.composedPath()[0];
  if (!(target instanceof Element)) return false;
  return target.isContentEditable || target.matches("input:not([type=range]), textarea, select");
}

export default function ({ data, parentElement }) {
  const state = (parentElement.firstread ??= {});
  state.bindings = data.bindings;
  const button = (name) => document.querySelector(`.st-key-${CSS.escape(name)} button`);
  const label = () => {
    for (const [key, name] of Object.entries(state.bindings)) {
      const found = button(name);
      if (found && found.dataset.frKey !== key.toUpperCase()) found.dataset.frKey = key.toUpperCase();
    }
  };
  label();
  if (state.stop) return state.stop;
  const press = (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || event.repeat || typing(event)) return;
    const name = state.bindings[event.key.toLowerCase()];
    const found = name && button(name);
    if (!found) return;
    event.preventDefault();
    event.stopImmediatePropagation();
    if (!found.disabled) found.click();
  };
  window.addEventListener("keydown", press, true);
  const watch = new MutationObserver(label); // buttons come and go with what a study allows
  watch.observe(document.querySelector('[data-testid="stApp"]') ?? document.body, {
    childList: true,
    subtree: true,
  });
  state.stop = () => {
    window.removeEventListener("keydown", press, true);
    watch.disconnect();
    state.stop = undefined;
  };
  return state.stop;
}
