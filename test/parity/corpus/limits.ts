// What a service is kept from: more than it takes at once or in a time.

import { ask, call, type Case, type Exchange, request } from "../description.ts";

const slow = request("/slow", { headers: { "x-delay": "1000" } });
/** Over HTTP/1.1 alone: another request is under way when it is sent. */
const beside = (name: string, send = request("/quick")): Exchange => ({ name, send, meanwhile: slow });

export const LIMITS: readonly Case[] = [
  { name: "requests at once", service: { routes: [{ rules: [{}] }], servers: "http2", limits: { requests: 1 } }, exchanges: [beside("one too many"), ask("/alone"), beside("one too many again"), ask("/alone again")] },
  { name: "connections", service: { routes: [{ rules: [{}] }], limits: { connections: 1, pending: 1 } }, exchanges: [{ ...beside("waits for the connection"), arrivals: 2 }, ask("/alone")] },
  { name: "requests in a time", service: { routes: [{ rules: [{ response: { set: { "x-rule": "limited" } } }] }], rate: { requests: 2, perMs: 60_000 } }, exchanges: ["first", "second", "third", "fourth"].map((name) => ({ name, send: request("/") })) },
  { name: "calls in a time", service: { port: "grpc", servers: "http2", routes: [{ rules: [{}] }], rate: { requests: 1, perMs: 60_000 } }, exchanges: [call("/a.B/C", { name: "first" }), call("/a.B/C", { name: "second" })] },
];
