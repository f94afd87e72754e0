import { describe, expect, test } from "bun:test";
import vectors from "../../../test/vectors/hbone/connect.json";
import { type IpAddress } from "../../core/ip.ts";
import { seededRandom } from "../../core/ports.ts";
import { type Authority, formatAuthority } from "./authority.ts";
import { type BaggageSource, decodeBaggage } from "./baggage.ts";
import { randomTraceparent } from "../trace/traceparent.ts";
import { connectFields, type ConnectOptions, readConnect, responseFields } from "./connect.ts";

const web: BaggageSource = {
  clusterId: "", namespace: "shop", workloadType: "deployment", workloadName: "web", canonicalName: "web", canonicalRevision: "v1",
  locality: { region: "r1", zone: "" },
};
const authority: Authority = { kind: "hostname", hostname: "api.shop.svc.cluster.local", port: 80 };
const options = (more: Partial<ConnectOptions> = {}): ConnectOptions => ({
  authority, source: web, clusterId: "c1", forwardedFor: { ip: "198.18.0.9" as IpAddress, port: 50000 }, forwardedHost: null, traceparent: randomTraceparent(seededRandom(7)), ...more,
});

describe("CONNECT", () => {
  for (const vector of vectors.accepted) {
    test(`accepts ${vector.name}`, () => {
      const read = readConnect(vector.headers);
      if (!read.ok) throw new Error(read.error.reason);
      expect(formatAuthority(read.value.authority)).toBe(vector.authority);
      expect(read.value.baggage?.namespace ?? null).toBe(vector.namespace);
      expect(read.value.forwardedHost).toBe(vector.forwardedHost);
      expect((read.value.trace?.traceId ?? null)).toBe(vector.traceId);
      expect(read.value.forwardedNetwork).toBe(vector.forwardedNetwork);
    });
  }

  for (const vector of vectors.refused) {
    test(`refuses ${vector.name} with 400`, () => {
      const read = readConnect(vector.headers);
      expect(read.ok).toBe(false);
      if (!read.ok) {
        expect(read.error.status).toBe(400);
        expect(read.error.reason).not.toBe("");
      }
    });
  }

  test("the reason never repeats what the peer sent", () => {
    const read = readConnect([":method", "CONNECT", ":authority", "evil\u001b[31m:80"]);
    expect(JSON.stringify(read)).not.toContain("evil");
  });

  test("what is sent is read back", () => {
    const fields = connectFields(options({ forwardedHost: "api.shop.svc.cluster.local", network: "n1" }));
    expect(fields.slice(0, 4)).toEqual([":method", "CONNECT", ":authority", "api.shop.svc.cluster.local:80"]);
    const read = readConnect(fields);
    if (!read.ok) throw new Error(read.error.reason);
    expect(read.value).toMatchObject({ authority, forwardedHost: "api.shop.svc.cluster.local", forwardedNetwork: "n1" });
    expect(read.value.baggage).toMatchObject({ clusterId: "c1", namespace: "shop", workloadName: "web", serviceName: "web", serviceVersion: "v1", region: "r1" });
    expect((read.value.trace?.traceId ?? null)).toMatch(/^[0-9a-f]{32}$/);
  });

  test("only a tunnel through a gateway names the network", () => {
    expect(connectFields(options())).not.toContain("x-forwarded-network");
    expect(connectFields(options({ network: "bad\nname" }))).not.toContain("x-forwarded-network");
  });

  test("the 200 carries the destination's baggage, or none", () => {
    const fields = responseFields(web, "c1");
    expect(fields.slice(0, 2)).toEqual([":status", "200"]);
    expect(fields[2]).toBe("baggage");
    expect(decodeBaggage([fields[3]!])).toMatchObject({ clusterId: "c1", namespace: "shop", workloadName: "web" });
    expect(responseFields(null)).toEqual([":status", "200"]);
  });
});
