"use strict";
// The theme's button, and the sample browser: filters a list of problems, and unpacks those that a reader opens.
// Everything that was rendered is HTML made by the report, in which texts of models are escaped; all else is set as text.

const root = document.documentElement;
const themes = ["auto", "light", "dark"];
const themeButton = document.getElementById("theme");

function showTheme(theme) {
  if (theme === "auto") delete root.dataset.theme;
  else root.dataset.theme = theme;
  themeButton.textContent = `Theme: ${theme}`;
}

function stored(theme) {
  try { // a page opened from a file may have no storage
    if (theme) localStorage.setItem("trl-math-theme", theme);
    return localStorage.getItem("trl-math-theme");
  } catch { return null; }
}

themeButton.addEventListener("click", () => {
  const theme = themes[(themes.indexOf(root.dataset.theme ?? "auto") + 1) % themes.length];
  showTheme(theme);
  stored(theme);
});
showTheme(themes.includes(stored()) ? stored() : "auto");
themeButton.hidden = false;

async function unpack(id) {
  const packed = Uint8Array.from(atob(document.getElementById(id).textContent), (c) => c.charCodeAt(0));
  const stream = new Blob([packed]).stream().pipeThrough(new DecompressionStream("deflate"));
  return JSON.parse(await new Response(stream).text());
}

function element(name, attributes, ...children) {
  const made = Object.assign(document.createElement(name), attributes);
  made.append(...children);
  return made;
}

async function browse() {
  const { runs, problems } = await unpack("index");
  const [form, list, more, count, shown] = ["filters", "list", "more", "count", "problem"].map((id) => document.getElementById(id));
  const page = 60;
  const blocks = new Map();
  const hasTitles = new Set(problems.map((one) => one.title)).size > 1;
  const keys = [...document.querySelectorAll("#runs tbody tr .key")];
  let found = [];
  let request = 0;

  for (const name of ["title", "level", "subject"]) {
    const values = [...new Set(problems.map((one) => one[name]).filter(Boolean))];
    values.sort((a, b) => a.localeCompare(b, "en", { numeric: true }));
    form.elements[name].append(...values.map((value) => element("option", { value, textContent: value })));
    form.elements[name].parentElement.hidden = values.length < 2;
  }

  function matches(one) {
    const { title, level, subject, state, search } = Object.fromEntries(new FormData(form));
    const words = search.toLowerCase().split(/\s+/).filter(Boolean);
    const text = () => `${one.id}\n${one.words}\n${one.answer}`.toLowerCase();
    return (!title || one.title === title) && (!level || one.level === level) && (!subject || one.subject === subject)
      && (!state || (state === "differs" ? one.differs : one.state === state))
      && (!words.length || words.every((word) => text().includes(word)));
  }

  function item(one) {
    const scores = element("span", { className: "scores" });
    one.scores.forEach((score, run) => {
      if (!score) return;
      const key = keys[run] ? keys[run].cloneNode(true) : "";
      scores.append(element("span", { title: runs[run] }, key, `${score[0]}/${score[1]}`));
    });
    if (hasTitles) scores.append(element("span", { textContent: one.title }));
    const words = element("span", { className: "words", textContent: one.words || one.id });
    const button = element("button", { type: "button" }, words, scores);
    button.addEventListener("click", () => open(one, button));
    return element("li", {}, button);
  }

  function extend() {
    list.append(...found.slice(list.children.length, list.children.length + page).map(item));
    more.hidden = list.children.length >= found.length;
  }

  function filter() {
    found = problems.filter(matches);
    request += 1; // what was asked for before is not wanted any more
    list.replaceChildren();
    count.textContent = found.length === 1 ? "1 problem" : `${found.length} problems`;
    extend();
    if (found.length) open(found[0], list.querySelector("button"), false);
    else shown.replaceChildren(element("p", { className: "note", textContent: "No problem matches." }));
  }

  async function open(one, button, isAsked = true) {
    const mine = ++request;
    const [block, place] = one.at;
    if (!blocks.has(block)) blocks.set(block, unpack(`block-${block}`));
    const html = (await blocks.get(block))[place];
    if (mine !== request) return; // another was asked for meanwhile
    shown.innerHTML = html;
    list.querySelector("[aria-current]")?.removeAttribute("aria-current");
    button.setAttribute("aria-current", "true");
    const top = shown.getBoundingClientRect().top;
    if (isAsked && (top < 0 || top > innerHeight / 2)) shown.scrollIntoView({ block: "start" });
  }

  list.addEventListener("keydown", (event) => {
    const step = { ArrowDown: 1, ArrowUp: -1 }[event.key];
    if (!step) return;
    const buttons = [...list.querySelectorAll("button")];
    buttons[buttons.indexOf(document.activeElement) + step]?.focus();
    event.preventDefault();
  });
  more.addEventListener("click", extend);
  form.addEventListener("input", filter);
  form.addEventListener("submit", (event) => event.preventDefault());
  form.hidden = false;
  document.querySelector(".browser").hidden = false;
  filter();
}

if (document.getElementById("index")) browse();
