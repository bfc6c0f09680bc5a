// <bemi-history token="…">: what happened to what is theirs, for customers of an application. The
// server says what may be seen; here it becomes sentences, and text alone, whatever is in it.
const SERVER = new URL(import.meta.url).origin;

const WORDS = {
  en: {
    title: "History",
    created: "{who} created {row}",
    changed: "{who} changed {columns} of {row}",
    set: "{who} changed {columns} of {row} from {before} to {after}",
    deleted: "{who} deleted {row}",
    added: "{row} was added",
    removed: "{row} was removed",
    somebody: "Somebody",
    fields: "{count} fields",
    details: "Details",
    before: "before:",
    after: "after:",
    nothing: "nothing",
    empty: "empty",
    unknown: "not known",
    masked: "masked",
    hashed: "hidden",
    too_large: "too large",
    undecodable: "not text",
    too_deep: "too long",
    more: "Show more",
    again: "Try again",
    loading: "Loading…",
    none: "Nothing has changed yet.",
    no_more: "That is all.",
    expired: "This view has expired: load the page again.",
    failed: "The history can't be loaded just now.",
  },
  de: {
    title: "Verlauf",
    created: "{who} hat {row} angelegt",
    changed: "{who} hat {columns} von {row} geändert",
    set: "{who} hat {columns} von {row} von {before} auf {after} geändert",
    deleted: "{who} hat {row} gelöscht",
    added: "{row} ist hinzugekommen",
    removed: "{row} wurde entfernt",
    somebody: "Jemand",
    fields: "{count} Felder",
    details: "Einzelheiten",
    before: "vorher:",
    after: "nachher:",
    nothing: "nichts",
    empty: "leer",
    unknown: "nicht bekannt",
    masked: "verdeckt",
    hashed: "verborgen",
    too_large: "zu groß",
    undecodable: "kein Text",
    too_deep: "zu lang",
    more: "Mehr anzeigen",
    again: "Noch einmal versuchen",
    loading: "Wird geladen …",
    none: "Bisher hat sich nichts geändert.",
    no_more: "Das ist alles.",
    expired: "Diese Ansicht ist abgelaufen: Laden Sie die Seite neu.",
    failed: "Der Verlauf kann gerade nicht geladen werden.",
  },
  fr: {
    title: "Historique",
    created: "{who} a créé {row}",
    changed: "{who} a modifié {columns} de {row}",
    set: "{who} a modifié {columns} de {row} : {before} est devenu {after}",
    deleted: "{who} a supprimé {row}",
    added: "{row} a été ajouté",
    removed: "{row} a été retiré",
    somebody: "Quelqu’un",
    fields: "{count} champs",
    details: "Détails",
    before: "avant :",
    after: "après :",
    nothing: "rien",
    empty: "vide",
    unknown: "inconnu",
    masked: "masqué",
    hashed: "caché",
    too_large: "trop grand",
    undecodable: "pas du texte",
    too_deep: "trop long",
    more: "Afficher plus",
    again: "Réessayer",
    loading: "Chargement…",
    none: "Rien n’a changé pour l’instant.",
    no_more: "C’est tout.",
    expired: "Cette vue a expiré : rechargez la page.",
    failed: "L’historique ne peut pas être chargé pour le moment.",
  },
};

const SHEET = new CSSStyleSheet();
SHEET.replaceSync(`
:host {
  --ground: var(--bemi-ground, light-dark(#ffffff, #14171a));
  --raised: var(--bemi-raised, light-dark(#f5f6f8, #1d2126));
  --ink: var(--bemi-ink, light-dark(#1b1f24, #e6e9ec));
  --quiet: var(--bemi-quiet, light-dark(#57606a, #a3adb8));
  --line: var(--bemi-line, light-dark(#d5dae0, #353b43));
  --edge: var(--bemi-edge, light-dark(#7d8590, #7d8590));
  --link: var(--bemi-link, light-dark(#0b57d0, #8ab4f8));
  --create: var(--bemi-create, light-dark(#116329, #57d57b));
  --create-tint: var(--bemi-create-tint, light-dark(#e3f5e7, #12301c));
  --update: var(--bemi-update, light-dark(#7a4d00, #f0b849));
  --delete: var(--bemi-delete, light-dark(#a40e26, #ff8f8f));
  --delete-tint: var(--bemi-delete-tint, light-dark(#ffebec, #3b1416));
  --space: var(--bemi-space, 0.75rem);
  --round: var(--bemi-round, 0.375rem);
  display: block;
  background: var(--ground);
  color: var(--ink);
  font: var(--bemi-font, inherit);
  font-variant-numeric: tabular-nums;
  line-height: 1.5;
  overflow-wrap: anywhere;
}
:host([hidden]) { display: none; }
section { container-type: inline-size; }
ol, dl, dd, p { margin: 0; padding: 0; list-style: none; }
li { padding: var(--space) 0 var(--space) var(--space); border-bottom: 1px solid var(--line); border-left: 3px solid var(--update); }
li.created, li.added { border-left-color: var(--create); }
li.deleted, li.removed { border-left-color: var(--delete); }
.head { display: grid; grid-template-columns: minmax(0, 1fr) auto; align-items: baseline; gap: 0 var(--space); }
time, dt, summary, [role="status"] { color: var(--quiet); font-size: 0.875em; }
time { white-space: nowrap; }
strong { font-weight: 600; }
dl { display: grid; gap: 0.25rem; padding-top: 0.25rem; }
dl > div { display: grid; grid-template-columns: minmax(5rem, 10rem) minmax(0, 1fr); gap: 0 var(--space); }
.value { white-space: pre-wrap; }
.said .value { background: var(--raised); border-radius: var(--round); padding: 0 0.25rem; }
em { color: var(--quiet); }
del, ins { border-radius: var(--round); padding: 0 0.25rem; }
del, del em { color: var(--delete); background: var(--delete-tint); }
ins, ins em { color: var(--create); background: var(--create-tint); text-decoration: none; }
summary { cursor: pointer; width: fit-content; }
button { font: inherit; color: inherit; background: var(--ground); border: 1px solid var(--edge); border-radius: var(--round); padding: 0.25rem var(--space); min-height: 2.5rem; margin: var(--space) var(--space) 0 0; cursor: pointer; }
:focus-visible { outline: 2px solid var(--link); outline-offset: 2px; }
.unseen { position: absolute; width: 1px; height: 1px; overflow: hidden; clip-path: inset(50%); white-space: nowrap; }
[role="status"] { padding: 0.25rem 0; }
@container (max-width: 30rem) { .head { display: block; } dl > div { grid-template-columns: minmax(0, 1fr); } }
`);

const own = (from, name) => (from && Object.hasOwn(from, name) ? from[name] : undefined);
const pause = (seconds) => new Promise((done) => setTimeout(done, 1000 * seconds));

function made(tag, className, ...content) {
  const element = document.createElement(tag);
  if (className) element.className = className;
  element.append(...content);
  return element;
}

class BemiHistory extends HTMLElement {
  static observedAttributes = ["token", "table", "key"];
  #words = {};
  #given = {};
  #token = null;
  #told = () => {};
  #waiting = null;
  #turn = 0;
  #began = false;
  #next = null;
  #list = made("ol");
  #status = made("p");
  #more = made("button");
  #section = made("section", "", this.#list, this.#more, this.#status);

  constructor() {
    super();
    this.#section.part = "history";
    this.#list.setAttribute("role", "list");
    this.#status.setAttribute("role", "status");
    this.#more.type = "button";
    this.#more.hidden = true;
    this.#more.addEventListener("click", () => this.#load(true));
    const root = this.attachShadow({ mode: "open" });
    root.adoptedStyleSheets = [SHEET];
    root.append(this.#section);
  }

  connectedCallback() {
    const data = this.querySelector('script[type="application/json"]');
    if (data) this.#given = JSON.parse(data.textContent);
    if (this.hasAttribute("framed")) this.#listen();
    this.#began = true;
    this.reload();
  }

  disconnectedCallback() {
    this.#began = false;
    this.#turn += 1;
  }

  attributeChangedCallback(name, _, value) {
    if (name === "token") this.token = value;
    else if (this.#began) this.reload();
  }

  /** For the next request: what is shown already stays. */
  set token(value) {
    this.#token = value;
    if (value) this.#told();
  }

  /** Sentences, and names of tables and columns, in place of ours. */
  set words(value) {
    this.#given = value ?? {};
    if (this.#began) this.reload();
  }

  reload() {
    this.#turn += 1;
    this.#next = null;
    this.#list.replaceChildren();
    this.#more.hidden = true;
    this.#speak();
    return this.#load(false);
  }

  async #load(further) {
    const turn = (this.#turn += 1);
    this.#say("loading");
    this.#more.textContent = this.#words.more;
    this.#section.setAttribute("aria-busy", "true");
    this.#more.disabled = true;
    const first = this.#list.childElementCount;
    try {
      // Of what is theirs, some pages may have nothing that is told.
      for (let pages = 0; pages < 10; pages += 1) {
        const page = await this.#page(turn);
        if (turn !== this.#turn) return;
        this.#speak(page.language);
        this.#next = page.next;
        this.#list.append(...page.changes.map((each) => this.#change(each)));
        if (page.changes.length || !page.next) break;
      }
      const count = this.#list.childElementCount;
      this.#more.hidden = !this.#next;
      this.#say(count ? (this.#next || !further ? null : "no_more") : this.#next ? null : "none");
      if (further && count > first) this.#list.children[first].focus();
    } catch (error) {
      if (turn !== this.#turn) return;
      this.#say("failed");
      this.#more.textContent = this.#words.again;
      this.#more.hidden = false;
      this.dispatchEvent(new CustomEvent("bemi-error", { detail: error, bubbles: true }));
    } finally {
      if (turn === this.#turn) {
        this.#section.removeAttribute("aria-busy");
        this.#more.disabled = false;
      }
    }
  }

  async #page(turn) {
    const url = new URL("/api/v1/embed/changes", SERVER);
    const asked = { table: this.getAttribute("table"), key: this.getAttribute("key"), behind: this.#next, limit: this.getAttribute("limit") };
    for (const [name, value] of Object.entries(asked)) if (value) url.searchParams.set(name, value);
    for (let tries = 1; ; tries += 1) {
      this.#token ||= await this.#fresh();
      if (turn !== this.#turn) return null;
      this.#say("loading");
      const answer = await fetch(url, {
        headers: { Authorization: `Bearer ${this.#token}` },
        credentials: "omit",
        cache: "no-store",
        redirect: "error",
        referrerPolicy: "no-referrer",
      });
      if (answer.ok) return answer.json();
      if (answer.status === 401 && tries < 3) this.#token = null;
      else if ([429, 503].includes(answer.status) && tries < 3) await pause(Number(answer.headers.get("Retry-After")) || 5);
      else throw new Error(`${answer.status}`);
    }
  }

  /** Another token: of the application's backend, of its page, or of the page that frames this. */
  async #fresh() {
    const url = this.getAttribute("token-url");
    if (url) {
      const answer = await fetch(url, { credentials: "same-origin", cache: "no-store" });
      if (!answer.ok) throw new Error(`${answer.status}`);
      return (await answer.json()).token;
    }
    if (this.hasAttribute("token") || this.#list.childElementCount) this.#say("expired");
    await (this.#waiting ??= this.#asked());
    return this.#token;
  }

  async #asked() {
    const given = new Promise((done) => (this.#told = done));
    const ask = () => parent.postMessage({ bemi: "token" }, "*");
    // The page around a frame may be slower than the frame.
    const again = this.hasAttribute("framed") && (ask(), setInterval(ask, 1000));
    this.dispatchEvent(new CustomEvent("bemi-token", { bubbles: true }));
    await given;
    clearInterval(again);
    this.#waiting = null;
  }

  /** In a frame: the page around it gives a token, words and colours, and gets the height. */
  #listen() {
    const allowed = this.getAttribute("framed").split(" ");
    this.style.setProperty("--bemi-font", "0.9375rem system-ui, sans-serif");
    addEventListener("message", ({ source, origin, data }) => {
      if (source !== parent || !allowed.includes(origin) || !data) return;
      for (const name of ["table", "key"]) if (typeof data[name] === "string") this.setAttribute(name, data[name]);
      for (const [name, value] of Object.entries(data.theme ?? {})) if (name.startsWith("--bemi-")) this.style.setProperty(name, value);
      if (data.token) this.token = data.token;
      if (data.words && JSON.stringify(data.words) !== JSON.stringify(this.#given)) this.words = data.words;
    });
    if (location.hash.length > 1) {
      this.token = location.hash.slice(1);
      history.replaceState(null, "", location.pathname);
    }
    new ResizeObserver(() => parent.postMessage({ bemi: "height", height: document.documentElement.offsetHeight }, "*")).observe(this);
  }

  #speak(language) {
    const wanted = this.lang || language || this.closest("[lang]")?.lang || navigator.language;
    try {
      [this.language] = Intl.getCanonicalLocales(wanted);
    } catch {
      this.language = "en";
    }
    const base = this.language.split("-")[0];
    const known = own(WORDS, base);
    this.#words = { ...(known ?? WORDS.en), ...this.#given };
    this.#section.lang = known || this.#given.created ? this.language : "en";
    this.#section.setAttribute("aria-label", this.#words.title);
    this.#more.textContent = this.#words.more;
    if (this.hasAttribute("framed")) document.documentElement.lang = this.#section.lang;
  }

  #say(name) {
    this.#status.textContent = name ? this.#words[name] : "";
  }

  #change({ at, kind, table, label, context, columns }) {
    const named = (column) => own(this.#words.columns, `${table}.${column}`) ?? own(this.#words.columns, column) ?? column;
    const name = own(this.#words.tables, table) ?? table.replace(/^public\./, "");
    const said = Object.values(context)[0];
    const [only] = columns;
    const isSet = kind === "changed" && columns.length === 1 && [only.before, only.after].every((side) => side && !side.note && (side.text ?? "").length <= 40);
    const sentence = this.#sentence(this.#words[isSet ? "set" : kind], {
      who: () => [made("strong", "", made("bdi", "", said ?? this.#words.somebody))],
      row: () => [made("strong", "", made("bdi", "", label ? `${name} ${label}` : name))],
      columns: () => this.#listed(columns.map((each) => named(each.name))),
      before: () => [this.#value(only?.before)],
      after: () => [this.#value(only?.after)],
    });
    const time = made("time", "", new Intl.DateTimeFormat(this.language, { dateStyle: "medium", timeStyle: "short" }).format(new Date(at)));
    time.dateTime = time.title = at;
    time.part = "time";
    const said_ = made("p", "said", ...sentence);
    said_.part = "sentence";
    const item = made("li", kind, made("div", "head", said_, time));
    item.part = "change";
    item.tabIndex = -1;
    if (isSet || !columns.length) return item;
    const values = made("dl", "", ...columns.map((each) => made("div", "", made("dt", "", made("bdi", "", named(each.name))), this.#sides(each, kind))));
    if (kind === "changed") item.append(values);
    else item.append(made("details", "", made("summary", "", this.#words.details), values));
    return item;
  }

  #sides({ before, after }, kind) {
    if (kind !== "changed") return made("dd", "", this.#value(before ?? after));
    const side = (tag, value) => !value ? this.#value() : made(tag, "", made("span", "unseen", `${this.#words[tag === "del" ? "before" : "after"]} `), this.#value(value));
    const arrow = made("span", "", " → ");
    arrow.setAttribute("aria-hidden", "true");
    return made("dd", "", side("del", before), arrow, side("ins", after));
  }

  #value(value) {
    if (!value) return made("em", "", this.#words.unknown);
    const text = value.text === null ? made("em", "", this.#words.nothing) : value.text === "" ? made("em", "", this.#words.empty) : made("bdi", "value", value.text);
    return value.note ? made("span", "", text, " ", made("em", "", `(${own(this.#words, value.note) ?? value.note})`)) : text;
  }

  #listed(names) {
    if (names.length > 3) return [this.#words.fields.replace("{count}", names.length)];
    return new Intl.ListFormat(this.language)
      .formatToParts(names)
      .map((part) => (part.type === "element" ? made("bdi", "", part.value) : part.value));
  }

  #sentence(template, parts) {
    return template.split(/\{(\w+)\}/).flatMap((text, at) => (at % 2 ? (own(parts, text)?.() ?? []) : text ? [text] : []));
  }
}

customElements.define("bemi-history", BemiHistory);
