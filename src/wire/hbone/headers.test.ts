import { describe, expect, test } from "bun:test";
import { processorMs } from "../../../test/kit/fair-time.ts";
import vectors from "../../../test/vectors/hbone/headers.json";
import { parseSocketAddress } from "../../core/ip.ts";
import { seededRandom } from "../../core/ports.ts";
import { type Baggage, BAGGAGE_BYTES_MAX, BAGGAGE_MEMBERS_MAX, BAGGAGE_VALUE_CHARS_MAX, decodeBaggage, emptyBaggage, encodeBaggage } from "./baggage.ts";
import { decodeForwardedHost, encodeForwarded, FORWARDED_BYTES_MAX } from "./forwarded.ts";
import { decodeTraceparent, encodeTraceparent, randomTraceparent } from "../trace/traceparent.ts";

const baggage = (given: Record<string, string>): Baggage => ({ ...emptyBaggage, ...given }) as Baggage;

describe("baggage", () => {
  for (const vector of vectors.baggageEncode) {
    test(`sends ${JSON.stringify(vector.header)}`, () => expect(encodeBaggage(baggage(vector.workload as Record<string, string>))).toBe(vector.header));
  }

  for (const vector of vectors.baggageDecode) {
    test(`reads ${JSON.stringify(vector.lines)}`, () => expect(decodeBaggage(vector.lines)).toEqual(baggage(vector.workload as Record<string, string>)));
  }

  test("what is sent is read back", () => {
    for (const vector of vectors.baggageEncode) {
      if (JSON.stringify(vector.workload).includes("\\n")) continue;
      expect(decodeBaggage([vector.header])).toEqual(baggage({ ...vector.workload, workloadType: (vector.workload as { workloadName?: string; workloadType?: string }).workloadName === undefined ? "deployment" : (vector.workload as { workloadType: string }).workloadType }));
    }
  });

  test("members past the limit are not read", () => {
    const filler = Array<string>(BAGGAGE_MEMBERS_MAX - 1).fill("x=y");
    expect(decodeBaggage([[...filler, "service.name=last"].join(",")]).serviceName).toBe("last");
    expect(decodeBaggage([[...filler, "x=y", "service.name=last"].join(",")]).serviceName).toBe("");
    expect(decodeBaggage([filler.join(","), "x=y", "service.name=last"]).serviceName).toBe("");
  });

  test("a line past the byte limit is not read, those before it are", () => {
    const read = decodeBaggage(["service.name=web", `service.version=${"v".repeat(BAGGAGE_BYTES_MAX)}`, "cloud.region=r"]);
    expect(read).toEqual(baggage({ serviceName: "web" }));
  });

  test("a value longer than the limit is neither read nor sent", () => {
    const value = "v".repeat(BAGGAGE_VALUE_CHARS_MAX);
    expect(decodeBaggage([`service.name=${value}`]).serviceName).toBe(value);
    expect(decodeBaggage([`service.name=${value}v`]).serviceName).toBe("");
    expect(encodeBaggage(baggage({ serviceName: `${value}v` }))).toBe("");
  });

  test("never sends more than the byte limit", () => {
    const value = "\u4e2d".repeat(BAGGAGE_VALUE_CHARS_MAX);
    const all = { clusterId: value, namespace: value, workloadName: value, serviceName: value, serviceVersion: value, region: value, zone: "z" };
    const sent = encodeBaggage(baggage(all));
    expect(sent.length).toBeLessThanOrEqual(BAGGAGE_BYTES_MAX);
    expect(sent).toEndWith(",cloud.availability_zone=z");
  });

  test("a lone surrogate is not sent", () => expect(encodeBaggage(baggage({ serviceName: "a\ud800" }))).toBe(""));
});

describe("forwarded", () => {
  for (const vector of vectors.forwardedEncode) {
    test(`sends ${vector.header}`, () => expect(encodeForwarded({ for: parseSocketAddress(vector.for)!, host: vector.host })).toBe(vector.header));
  }
  for (const vector of vectors.forwardedDecode) {
    test(`reads ${JSON.stringify(vector.lines)}`, () => expect(decodeForwardedHost(vector.lines)).toBe(vector.host));
  }
  test("a giant is not read, and costs nothing", () => {
    expect(decodeForwardedHost(["a=b;".repeat(FORWARDED_BYTES_MAX), "host=web"])).toBeNull();
    const slow = `${" \t".repeat(FORWARDED_BYTES_MAX / 2 - 1)}x`;
    expect(processorMs(() => {
      for (let i = 0; i < 100; i++) expect(decodeForwardedHost([slow])).toBeNull();
    })).toBeLessThan(1000);
  });
});

describe("traceparent", () => {
  for (const vector of vectors.traceparentAccepted) {
    test(`accepts ${vector.text}`, () => {
      const { traceId, parentId, sampled } = vector;
      expect(decodeTraceparent(vector.text)).toEqual({ traceId, parentId, sampled });
      expect(decodeTraceparent(encodeTraceparent({ traceId, parentId, sampled }))).toEqual({ traceId, parentId, sampled });
    });
  }
  for (const text of vectors.traceparentRefused) test(`refuses ${JSON.stringify(text)}`, () => expect(decodeTraceparent(text)).toBeNull());

  test("what is sent is valid, unsampled and fresh", () => {
    const random = seededRandom(1);
    const seen = new Set<string>();
    for (let i = 0; i < 1000; i++) {
      const read = decodeTraceparent(randomTraceparent(random));
      expect(read?.sampled).toBe(false);
      seen.add(read!.traceId);
    }
    expect(seen.size).toBe(1000);
  });
  test("a generator of zeros still makes valid ids", () => expect(decodeTraceparent(randomTraceparent({ next: () => 0 }))).not.toBeNull());
});
