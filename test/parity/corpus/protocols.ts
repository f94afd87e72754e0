// What must not change when the client's protocol and the server's differ, or are both HTTP/2.

import { ask, type Case, type Exchange, type Http2Request, type ServerProtocol } from "../description.ts";
import { WEBSOCKET_KEY } from "../observation.ts";

const over2 = (name: string, request: Partial<Http2Request>, rest: Partial<Exchange> = {}): Exchange => ({ name, send: null, http2: { method: "GET", target: "/", host: "web.example", headers: {}, body: null, ...request }, ...rest });
const websocket = { connection: "Upgrade", upgrade: "websocket", "sec-websocket-version": "13", "sec-websocket-key": WEBSOCKET_KEY };
const upgrade = (headers: Readonly<Record<string, string>>): string => `GET /chat HTTP/1.1\r\nhost: web.example\r\n${Object.entries(headers).map(([name, value]) => `${name}: ${value}\r\n`).join("")}\r\n`;

const exchanges: readonly Exchange[] = [
  ask("/"), ask("/a/b?c=d&e"), ask("/", { method: "HEAD" }), ask("/", { method: "DELETE" }), ask("/", { method: "OPTIONS" }), ask("/", { method: "PROPFIND" }), ask("/", { body: "text" }), ask("/", { method: "PUT", body: "x".repeat(70_000), name: "a body of 70 kB" }), ask("/", { body: "", name: "an empty body" }), ask("/", { method: "GET", body: "of a GET", name: "GET with a body" }),
  ...[204, 205, 304, 400, 404, 418, 500, 503].map((status) => ask("/", { headers: { "x-status": String(status) } })), ask("/", { method: "HEAD", headers: { "x-status": "404" } }), ask("/", { headers: { "x-answer": "set-cookie=a=1; set-cookie=b=2; x-more=1; vary=accept" } }), ask("/", { headers: { cookie: "a=1; b=2" } }), ask("/", { headers: { "x-empty": "" } }), ask("/", { headers: { te: "trailers" } }),
  ask("/", { host: "WEB.example" }), ask("/", { host: "web.example:8080" }), ask("/", { host: "web.example." }), ask("/", { headers: { "x_under": "1" } }), ask("/", { headers: { "X-Upper": "Value" } }), ask("/", { headers: { "x-long": "v".repeat(8_000) }, name: "a header of 8 kB" }), ask("/", { headers: { "user-agent": "x", accept: "*/*" } }),
  ask("/", { headers: { "x-trailers": "x-sum=7; x-more=8", te: "trailers" }, name: "trailers of the answer" }), ask("/", { headers: { "x-trailers": "x-sum=7" }, name: "trailers of the answer that nobody asked for" }), ask("/", { headers: { "x-interim": "103" } }), ask("/", { headers: { "x-interim": "103,103" } }), ask("/", { headers: { "x-interim": "102" } }),
  { name: "trailers of the request", send: "POST / HTTP/1.1\r\nhost: web.example\r\ntransfer-encoding: chunked\r\ntrailer: x-sum\r\n\r\n3\r\nabc\r\n0\r\nx-sum: 7\r\n\r\n" }, over2("trailers of a request", { method: "POST", body: "abc", trailers: { "x-sum": "7" } }),
  ask("/", { headers: { "x-id": "pd", "x-drop": "9" }, method: "POST", body: "x", name: "a connection that dies before the answer", arrivals: 1 }), ask("/", { headers: { expect: "100-continue" }, body: "waits for no one" }),
  { name: "WebSocket", send: upgrade(websocket), talk: "said by the client" }, { name: "WebSocket with a subprotocol", send: upgrade({ ...websocket, "sec-websocket-protocol": "chat, superchat" }), talk: "x" }, { name: "Upgrade: WebSocket, capital", send: upgrade({ ...websocket, upgrade: "WebSocket" }), talk: "x" },
  over2("WebSocket by extended CONNECT", { method: "CONNECT", target: "/chat", protocol: "websocket", headers: { "sec-websocket-version": "13" } }, { talk: "said by the client" }), over2("extended CONNECT for something else", { method: "CONNECT", target: "/chat", protocol: "other" }),
];

const forServers = (servers: ServerProtocol): Case => ({ name: `to ${servers === "http1" ? "HTTP/1.1" : "HTTP/2"}`, service: { servers, routes: [{ rules: [{}] }] }, exchanges });

export const PROTOCOLS: readonly Case[] = [forServers("http1"), forServers("http2")];
