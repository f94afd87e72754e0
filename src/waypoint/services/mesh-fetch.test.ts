// What is asked through the mesh, and what over the network.

import { describe, expect, test } from "bun:test";
import { delta, service, serviceName, waypoint as boundTo } from "../../../test/kit/mesh-records.ts";
import { backend1, WaypointFixture } from "../../../test/kit/waypoint.ts";
import { err } from "../../core/result.ts";
import type { IssuerRequest } from "../../identity/jwt/fetch-port.ts";
import { meshFetch } from "./mesh-fetch.ts";

const request = (url: string, fields: Partial<IssuerRequest> = {}): IssuerRequest => ({
  method: "GET", url, headers: { Accept: "application/json" }, body: null, timeoutMs: 2_000, bodyBytesMax: 1_000, publicOnly: false, signal: new AbortController().signal, ...fields,
});

async function issuer(body: (fetch: ReturnType<typeof meshFetch>, waypoint: WaypointFixture) => Promise<void>, answer = "keys"): Promise<void> {
  await using server = await backend1(async (asked, response) => {
    let text = "";
    for await (const chunk of asked) text += chunk;
    response.writeHead(asked.url === "/moved" ? 302 : 200, { "cache-control": "max-age=60", location: "/there" }).end(`${asked.method} ${asked.headers.host} ${asked.headers.accept} ${text} ${answer}`);
  });
  await using waypoint = new WaypointFixture({ endpoints: [{ service: "issuer", port: server.port }] });
  await body(meshFetch(async ({ url }) => err(`${url}: outside`), waypoint.store, () => waypoint.plane), waypoint);
}

const AT = "http://issuer.shop.svc.cluster.local";

describe("an issuer", () => {
  test("that is a service of the mesh is asked through it", () => issuer(async (fetch) => {
    expect(await fetch(request(`${AT}/keys`))).toEqual({ ok: true, value: { status: 200, location: "/there", cacheControl: "max-age=60", body: "GET issuer.shop.svc.cluster.local application/json  keys" } });
    const posted = await fetch(request(`${AT}/introspect`, { method: "POST", body: "token=caf\u00e9" }));
    expect(posted.ok && posted.value.body).toContain("POST issuer.shop.svc.cluster.local application/json token=caf\u00e9");
    // Where it points to is not followed here.
    expect(await fetch(request(`${AT}/moved`))).toMatchObject({ ok: true, value: { status: 302 } });
  }));

  test.each([
    ["by https", "https://issuer.shop.svc.cluster.local/keys", {}], ["at another port", `${AT}:81/keys`, {}], ["of another name", "http://issuer.example/keys", {}], ["that nobody wrote down", `${AT}/keys`, { publicOnly: true }],
  ] as const)("%s is asked over the network", (_, url, fields) => issuer(async (fetch) => expect(await fetch(request(url, fields))).toEqual({ ok: false, error: `${url}: outside` })));

  test("behind a waypoint is asked over the network: our identity is no way around", () => issuer(async (fetch, waypoint) => {
    waypoint.store.apply(delta({ services: [service({ name: "issuer", ports: [{ servicePort: 80, targetPort: 0, name: "http", appProtocol: "" }], waypoints: [boundTo("shop/other.shop.svc.cluster.local")] })] }));
    expect(await fetch(request(`${AT}/keys`))).toMatchObject({ ok: false });
  }));

  test("that answers with more than is taken, or not at all, is told with what was tried", () => issuer(async (fetch, waypoint) => {
    expect(await fetch(request(`${AT}/keys`, { bodyBytesMax: 10 }))).toMatchObject({ ok: false, error: expect.stringMatching(/^GET http:\/\/issuer\.shop\.svc\.cluster\.local\/keys, through the mesh: 127\.0\.0\.1:\d+ answers with more than 10 bytes$/) });
    waypoint.store.apply(delta({ removedServices: [serviceName(service({ name: "issuer" }))] }));
    expect(await fetch(request(`${AT}/keys`))).toEqual({ ok: false, error: `${AT}/keys: outside` });
  }, "k".repeat(500)));

  test("is given up when nobody waits any more", () => issuer(async (fetch) => {
    const gone = new AbortController();
    const answer = fetch(request(`${AT}/keys`, { signal: gone.signal }));
    gone.abort();
    expect(await answer).toMatchObject({ ok: false, error: expect.stringContaining("given up") });
  }));
});
