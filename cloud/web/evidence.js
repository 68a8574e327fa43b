// Sends a bundle, and a trust file if there is one, to the verifier of this server, and shows what it says. Everything that
// comes back is put on the page as text, never as markup: a device may have written anything into a reading.

const limit = 2 * 1024 * 1024;
const [bundle, trust, answer, drop] = ["bundle", "trust", "answer", "drop"].map((id) => document.getElementById(id));
const chosen = { bundle: null, trust: null };
let asked = 0;

function show(kind, title, text) {
  const article = document.createElement("article");
  article.className = kind;
  const head = document.createElement("h2");
  head.textContent = title;
  const body = document.createElement("pre");
  body.textContent = text;
  article.append(head, body);
  answer.append(article);
}

function base64(bytes) {
  let text = "";
  for (let at = 0; at < bytes.length; at += 0x8000) {
    text += String.fromCharCode(...bytes.subarray(at, at + 0x8000));
  }
  return btoa(text);
}

const titles = { proven: "Proven", refused: "Not proven", unreadable: "No evidence at all" };

async function verify() {
  if (!chosen.bundle) return;
  const mine = ++asked;
  answer.replaceChildren();
  if (chosen.bundle.size > limit) {
    show("unreadable", "Too large for this page", "Use: fivefold evidence verify FILE --trust TRUST");
    return;
  }
  try {
    const body = {
      bundle: base64(new Uint8Array(await chosen.bundle.arrayBuffer())),
      trust: chosen.trust ? await chosen.trust.text() : null,
    };
    const response = await fetch("/v1/evidence/verify", {
      method: "POST",
      headers: { "content-type": "application/json" },
      body: JSON.stringify(body),
    });
    const said = await response.json();
    // A later question has been asked meanwhile.
    if (mine !== asked) return;
    if (!response.ok) {
      show("unreadable", "It could not be checked", said.public ?? `The server answered ${response.status}.`);
      return;
    }
    if (said.believed === "this-deployment") {
      show("", "Whom this answer believes", "This server's own operator, log and witnesses, because you gave no trust file. " +
        "A server that lies would believe itself: give the trust file that you got by another way.");
    }
    for (const reading of said.readings) {
      show(reading.report.verdict, titles[reading.report.verdict] ?? reading.report.verdict, reading.text);
    }
  } catch (error) {
    if (mine === asked) show("unreadable", "It could not be checked", String(error));
  }
}

function choose(which, file) {
  chosen[which] = file;
  document.getElementById(`${which}-name`).textContent = `${file.name}, ${file.size} bytes`;
  verify();
}

bundle.addEventListener("change", () => bundle.files[0] && choose("bundle", bundle.files[0]));
trust.addEventListener("change", () => trust.files[0] && choose("trust", trust.files[0]));
for (const event of ["dragenter", "dragover"]) {
  document.addEventListener(event, (e) => {
    e.preventDefault();
    drop.classList.add("over");
  });
}
for (const event of ["dragleave", "drop"]) {
  document.addEventListener(event, (e) => {
    e.preventDefault();
    drop.classList.remove("over");
  });
}
document.addEventListener("drop", (e) => {
  for (const file of e.dataTransfer.files) choose(file.name.endsWith(".toml") ? "trust" : "bundle", file);
});
