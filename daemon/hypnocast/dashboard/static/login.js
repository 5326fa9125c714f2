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
      // Only the pages there are: browsers read "//", "/\\" and "/<tab>/" as another site.
      location.assign(/^\/(bed\/[A-Za-z0-9_-]{1,64})?$/.test(next) ? next : "/");
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
