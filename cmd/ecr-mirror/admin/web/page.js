// Asks for the page again every few seconds and puts in what differs: of the parts marked data-live, those whose HTML is another.
// What a reader has opened or has the focus on stays. While nobody sees the page nothing is asked.
const every = 3000, slowest = 60000, patience = 15000;
const line = document.getElementById("live");
const parts = (page) => new Map([...page.querySelectorAll("[data-live]")].map((e) => [e.id, e]));
let last = new Map([...parts(document)].map(([id, e]) => [id, e.outerHTML]));
let delay = every, timer, asking = false, paused = false, lost = "";

const say = (text) => { if (words.textContent !== text) words.textContent = text; };
const words = document.createElement("span");
const pause = document.createElement("button");
pause.type = "button";
pause.id = "pause";
pause.textContent = "Pause";
pause.addEventListener("click", () => {
	paused = !paused;
	pause.textContent = paused ? "Go on" : "Pause";
	if (paused) { clearTimeout(timer); say("paused "); } else { look(); }
});
line.replaceChildren(words, pause);
say("live ");

function put(page) {
	const fresh = parts(page); // before any of them leaves that page for this one
	for (const [id, e] of fresh) {
		const html = e.outerHTML, old = document.getElementById(id);
		if (html === last.get(id) && old) continue;
		last.set(id, html);
		if (!old) { // the first that this part shows: it stands before the tiles
			document.getElementById("tiles").before(document.adoptNode(e));
			continue;
		}
		const open = [...old.querySelectorAll("details[open]")].map((d) => d.id);
		const focus = old.contains(document.activeElement) ? document.activeElement : null;
		const scrolled = [...old.querySelectorAll(".scroll")].map((s) => s.scrollLeft);
		old.replaceWith(document.adoptNode(e));
		for (const d of open) document.getElementById(d)?.setAttribute("open", "");
		[...e.querySelectorAll(".scroll")].forEach((s, i) => { s.scrollLeft = scrolled[i] ?? 0; });
		if (focus) (focus.id ? document.getElementById(focus.id) : e.querySelector(focus.tagName))?.focus({ preventScroll: true });
	}
	for (const [id, e] of parts(document)) {
		if (!fresh.has(id)) { e.remove(); last.delete(id); }
	}
}

async function look() {
	clearTimeout(timer);
	if (asking || paused || document.hidden) return;
	asking = true;
	try {
		const address = new URL(location.href);
		address.searchParams.delete("notice");
		if (address.pathname !== "/") { address.pathname = "/"; address.search = ""; } // what a form was answered
		const answer = await fetch(address, { signal: AbortSignal.timeout(patience), headers: { Accept: "text/html" } });
		if (!answer.ok) throw new Error(answer.statusText);
		put(new DOMParser().parseFromString(await answer.text(), "text/html"));
		delay = every;
		lost = "";
		if (!paused) say("live ");
	} catch {
		lost ||= new Date().toLocaleTimeString();
		delay = Math.min(2 * delay, slowest);
		say(`no answer since ${lost} `);
	} finally {
		asking = false;
		if (!paused) timer = setTimeout(look, delay);
	}
}

document.addEventListener("visibilitychange", () => { if (document.hidden) clearTimeout(timer); else look(); });
timer = setTimeout(look, every);
