import { describe, expect, test } from "bun:test";
import type { IpAddress } from "../core/ip.ts";
import { parseTrustDomain, spiffeId } from "../core/spiffe.ts";
import type { ClientTunnel, TunnelOwner, TunnelTarget } from "./client-tunnel.ts";
import { type CloseCause, causes } from "./close-cause.ts";
import { INNER_TUNNEL_AGE_MS_MAX, INNER_TUNNELS_SPREAD, type PoolContext, TunnelPool, type PoolWaiter, TUNNEL_AGE_MS_MAX } from "./pool.ts";

const STREAMS_MAX = 10;
const IDLE_MS = 300_000;
const CLIENT = spiffeId(parseTrustDomain("cluster.local")!, "shop", "client");

const target = (through: TunnelTarget | null = null): TunnelTarget => ({
  key: through === null ? "direct" : "inner", sourceIdentity: CLIENT, namespaceFd: 3, tunnelTo: { ip: "198.18.0.1" as IpAddress, port: 15008 }, acceptedIdentities: [], destinationUid: null,
  through: through === null ? null : { gateway: through, connectBlock: () => { throw new Error("not opened here"); } },
});
const DIRECT = target();
const INNER = target(DIRECT);

/** A tunnel that becomes ready, and ends, when the test says so. */
class FakeTunnel {
  readonly openedMs = 0;
  readonly idleSinceMs = 0;
  readonly beyondGateway = true;
  connecting = true;
  ready = false;
  activeStreams = 0;
  retired: string | null = null;
  readonly target: TunnelTarget;
  readonly #owner: TunnelOwner;

  constructor(target: TunnelTarget, owner: TunnelOwner) {
    this.target = target;
    this.#owner = owner;
  }

  get room(): number {
    return this.ready ? STREAMS_MAX - this.activeStreams : 0;
  }

  open(): void {}
  tick(): void {}
  ping(): void {}

  becomeReady(): void {
    [this.connecting, this.ready] = [false, true];
    this.#owner.tunnelReady(this as unknown as ClientTunnel);
  }

  end(cause: CloseCause = causes.tunnelLost("gone")): void {
    [this.connecting, this.ready] = [false, false];
    this.#owner.tunnelClosed(this as unknown as ClientTunnel, cause);
  }

  retire(reason: string): void {
    this.retired = reason;
    this.ready = false;
  }
}

function pool(options: { readonly certificate?: boolean } = {}) {
  const tunnels: FakeTunnel[] = [];
  const requests: string[] = [];
  const context = {
    config: { poolStreamsMax: STREAMS_MAX, poolIdleMs: IDLE_MS },
    identities: { tlsContext: () => (options.certificate === false ? null : {}) },
    reporter: { poolRequest: (outcome: string) => void requests.push(outcome) },
  } as unknown as PoolContext;
  const under = new TunnelPool(context, (of, _tls, owner) => {
    const tunnel = new FakeTunnel(of, owner);
    tunnels.push(tunnel);
    return tunnel as unknown as ClientTunnel;
  });
  /** Connections that ask for a stream; each holds it. */
  const ask = (of: TunnelTarget, count = 1): Asked[] => Array.from({ length: count }, () => {
    const asked = new Asked();
    under.acquire(of, asked);
    return asked;
  });
  return { under, tunnels, requests, ask };
}

class Asked implements PoolWaiter {
  cancelled = false;
  got: FakeTunnel | null = null;
  refused: CloseCause | null = null;
  tunnelAvailable(tunnel: ClientTunnel): void {
    this.got = tunnel as unknown as FakeTunnel;
    this.got.activeStreams++;
  }
  tunnelUnavailable(cause: CloseCause): void {
    this.refused = cause;
  }
}

const streams = (tunnels: readonly FakeTunnel[]): number[] => tunnels.map((tunnel) => tunnel.activeStreams);

describe("pool: tunnels to a destination", () => {
  test("one is opened for all who fit into it, and the next for those who do not", () => {
    const { tunnels, ask, requests } = pool();
    ask(DIRECT, STREAMS_MAX + 1);
    expect(tunnels.length).toBe(2);
    tunnels[0]!.becomeReady();
    tunnels[1]!.becomeReady();
    expect(streams(tunnels)).toEqual([STREAMS_MAX, 1]);
    expect([ask(DIRECT)[0]!.got, requests.at(-1)]).toEqual([tunnels[1]!, "hit"]);
    expect(requests).toEqual(["opened", ...Array<string>(STREAMS_MAX - 1).fill("waited"), "opened", "hit"]);
  });
  test("those who wait hear why it failed, once nothing else is under way", () => {
    const { tunnels, ask } = pool();
    const asked = ask(DIRECT, 3);
    tunnels[0]!.end(causes.connectFailed("refused"));
    expect(asked.map(({ refused }) => refused?.code)).toEqual(["connect_failed", "connect_failed", "connect_failed"]);
  });
  test("a connection that has gone is passed over", () => {
    const { tunnels, ask } = pool();
    const asked = ask(DIRECT, 2);
    asked[0]!.cancelled = true;
    tunnels[0]!.becomeReady();
    expect(asked.map(({ got }) => got !== null)).toEqual([false, true]);
  });
  test("without a certificate nobody waits", () => {
    const { ask, requests } = pool({ certificate: false });
    expect([ask(DIRECT)[0]!.refused?.code, requests[0]]).toEqual(["certificate_missing", "refused"]);
  });
  test("old and idle ones take no more", () => {
    const { under, tunnels, ask } = pool();
    ask(DIRECT);
    tunnels[0]!.becomeReady();
    under.tick(TUNNEL_AGE_MS_MAX);
    expect(tunnels[0]!.retired).toBeNull();
    under.tick(TUNNEL_AGE_MS_MAX + 1);
    expect(tunnels[0]!.retired).toBe("age");
    ask(DIRECT);
    tunnels[1]!.becomeReady();
    tunnels[1]!.activeStreams = 0;
    under.tick(IDLE_MS + 1);
    expect(tunnels[1]!.retired).toBe("idle");
  });
});

describe("pool: tunnels through a gateway", () => {
  test("one after the other, connections come to use several, in turn", () => {
    const { tunnels, ask } = pool();
    ask(INNER);
    tunnels[0]!.becomeReady();
    for (let i = 1; i < INNER_TUNNELS_SPREAD; i++) {
      ask(INNER);
      tunnels[i]!.becomeReady();
    }
    ask(INNER, 2 * INNER_TUNNELS_SPREAD);
    expect(tunnels.length).toBe(INNER_TUNNELS_SPREAD);
    expect(streams(tunnels)).toEqual([3, 3, 3, 3]);
  });
  test("short connections, one at a time, use them in turn", () => {
    const { tunnels, ask } = pool();
    const used = Array.from({ length: 3 * INNER_TUNNELS_SPREAD }, () => {
      const [asked] = ask(INNER);
      for (const tunnel of tunnels) if (tunnel.connecting) tunnel.becomeReady();
      asked!.got!.activeStreams = 0;
      return tunnels.indexOf(asked!.got!);
    });
    expect(new Set(used.slice(-INNER_TUNNELS_SPREAD)).size).toBe(INNER_TUNNELS_SPREAD);
  });
  test("a burst before there is any is shared among as many", () => {
    const { tunnels, ask } = pool();
    const asked = ask(INNER, 12);
    expect(tunnels.length).toBe(INNER_TUNNELS_SPREAD);
    for (const tunnel of tunnels) tunnel.becomeReady();
    expect(streams(tunnels)).toEqual([3, 3, 3, 3]);
    expect(asked.every(({ got }) => got !== null)).toBe(true);
  });
  test("whoever comes while others wait for their share is served by what is ready", () => {
    const { tunnels, ask } = pool();
    ask(INNER, 8);
    tunnels[0]!.becomeReady();
    expect(streams(tunnels)).toEqual([2, 0, 0, 0]);
    expect(ask(INNER)[0]!.got).toBe(tunnels[0]!);
  });
  test("the share of one that fails goes to the others", () => {
    const { tunnels, ask } = pool();
    const asked = ask(INNER, 8);
    tunnels[0]!.becomeReady();
    for (const tunnel of tunnels.slice(1)) tunnel.end(causes.tlsFailed("no"));
    expect(asked.map(({ got }) => got)).toEqual(Array<FakeTunnel>(8).fill(tunnels[0]!));
  });
  test("each is replaced soon, as it is one choice of the gateway", () => {
    const { under, tunnels, ask } = pool();
    ask(INNER);
    tunnels[0]!.becomeReady();
    under.tick(INNER_TUNNEL_AGE_MS_MAX + 1);
    expect(tunnels[0]!.retired).toBe("age");
  });
});
