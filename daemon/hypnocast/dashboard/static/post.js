// What the pages ask of the server, with a fresh token against forged requests.

/** Post to an address of a bed; the answer has an error where it failed. */
export async function post(bed, what, body) {
  try {
    const session = await (await fetch("/api/session")).json();
    const answer = await fetch(`/api/bed/${encodeURIComponent(bed)}/${what}`, {
      method: "POST",
      headers: { "content-type": "application/json", "x-csrf-token": session.csrf ?? "" },
      body: JSON.stringify(body),
    });
    return await answer.json();
  } catch {
    return { error: "the server does not answer" };
  }
}
