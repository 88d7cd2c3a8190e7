// Greets whoever asks: the last part of the path, or everybody.

addEventListener("fetch", (event) => event.respondWith(greet(event.request)));

async function greet(request) {
  const name = new URL(request.url).pathname.replaceAll("/", "") || "world";
  console.log(`greeting ${name}`);
  return new Response(`Hello, ${name}, from JavaScript\n`, {
    headers: { "content-type": "text/plain; charset=utf-8" },
  });
}
