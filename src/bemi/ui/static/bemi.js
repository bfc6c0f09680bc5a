// Keys, buttons that copy, and word of new changes: pages work without.
"use strict";

const rows = () => [...document.querySelectorAll("[data-row]")];
const current = () => document.querySelector("[data-row][aria-current]");

function go(step) {
  const all = rows();
  if (!all.length) return;
  const at = all.indexOf(current());
  const next = all[Math.min(all.length - 1, Math.max(0, at + step))];
  current()?.removeAttribute("aria-current");
  next.setAttribute("aria-current", "true");
  next.querySelector("[data-open]").focus({ preventScroll: true });
  next.scrollIntoView({ block: "nearest" });
}

function fold() {
  const details = current()?.querySelector("details");
  if (details) details.open = !details.open;
}

function focusOn(selector) {
  const field = document.querySelector(selector);
  const menu = field?.closest("details");
  if (menu) menu.open = true;
  field?.focus();
}

const KEYS = {
  "/": () => focusOn("[data-filter]"),
  j: () => go(1),
  k: () => go(-1),
  d: fold,
  t: () => focusOn("#when"),
  "?": () => document.getElementById("keys")?.showModal(),
};

document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey || event.isComposing) return;
  if (event.target.closest("input, select, textarea, dialog")) return;
  // Enter opens what has the focus, which is the row that was gone to.
  const action = Object.hasOwn(KEYS, event.key) ? KEYS[event.key] : null;
  if (!action) return;
  event.preventDefault();
  action();
});

document.addEventListener("focusin", (event) => {
  const row = event.target.closest("[data-row]");
  if (!row || row === current()) return;
  current()?.removeAttribute("aria-current");
  row.setAttribute("aria-current", "true");
});

document.getElementById("add")?.addEventListener("change", (event) => {
  document.getElementById("value").placeholder = event.target.selectedOptions[0].dataset.example;
});

// Listens while somebody looks, and no longer than it takes: the page stays as it is until it is asked
// for anew.
const fresh = document.querySelector("[data-stream]");

function listen() {
  const events = new EventSource(fresh.dataset.stream);
  const leave = () => {
    events.close();
    document.removeEventListener("visibilitychange", leave);
  };
  const told = () => {
    leave();
    fresh.hidden = false;
  };
  events.addEventListener("change", told);
  events.addEventListener("missing", told);
  document.addEventListener("visibilitychange", leave);
}

if (fresh) {
  const look = () => !document.hidden && fresh.hidden && listen();
  look();
  document.addEventListener("visibilitychange", look);
}

// A slider beside the list that it moves through. It is let go to look, or Enter is pressed.
for (const range of document.querySelectorAll("[data-slider]")) {
  const list = document.getElementById(range.dataset.slider);
  const tell = () => range.setAttribute("aria-valuetext", list.selectedOptions[0].textContent);
  range.value = list.selectedIndex;
  range.addEventListener("input", () => {
    list.selectedIndex = range.value;
    tell();
  });
  range.addEventListener("pointerup", () => list.form.requestSubmit());
  list.addEventListener("change", () => {
    range.value = list.selectedIndex;
    tell();
  });
  tell();
}

if (navigator.clipboard) {
  for (const button of document.querySelectorAll("[data-copy]")) {
    button.hidden = false;
    button.addEventListener("click", async () => {
      await navigator.clipboard.writeText(button.dataset.copy);
      button.textContent = "copied";
    });
  }
}
