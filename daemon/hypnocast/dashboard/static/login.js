const form = document.getElementById("form");
const wrong = document.getElementById("wrong");

form.addEventListener("submit", async (event) => {
  event.preventDefault();
  const button = form.querySelector("button");
  button.disabled = true;
  wrong.textContent = "";
  try {
    const answer = await fetch("/api/login", {
      method: "POST",
      headers: { "content-type": "application/json" },
      body: JSON.stringify({ user: form.user.value, password: form.password.value }),
    });
    if (answer.ok) {
      const next = new URLSearchParams(location.search).get("next") ?? "/";
      // Only a path of this site: "//elsewhere" would lead away.
      location.assign(/^\/(?![/\\])/.test(next) ? next : "/");
      return;
    }
    wrong.textContent = (await answer.json().catch(() => null))?.error ?? "The server refused.";
    form.password.select();
  } catch {
    wrong.textContent = "The server does not answer.";
  } finally {
    button.disabled = false;
  }
});

form.user.focus();
