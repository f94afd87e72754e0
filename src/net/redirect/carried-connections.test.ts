import { describe, expect, test } from "bun:test";
import type { IpAddress } from "../../core/ip.ts";
import type { TcpSocket, TcpState } from "../../wire/netlink/connections.ts";
import type { TrackedConnection } from "../../wire/netlink/conntrack.ts";
import { carriedOf, translatedOf } from "./carried-connections.ts";
import { REDIRECT_DEFAULTS } from "./options.ts";

const MARK = REDIRECT_DEFAULTS.packetMark.value;
const at = (text: string) => {
  const colon = text.lastIndexOf(":");
  return { ip: text.slice(0, colon) as IpAddress, port: Number(text.slice(colon + 1)) };
};
type End = Partial<Pick<TcpSocket, "state" | "held" | "unackedBytes" | "mark">>;
const end = (local: string, remote: string, rest: End = {}): TcpSocket => ({ local: at(local), remote: at(remote), state: "established", held: true, unackedBytes: 0, mark: 0, ...rest });

/** The application's end and the proxy's, of a connection that was redirected to the outbound port. */
const outbound = (application: End | null, proxy: End): TcpSocket[] => [
  ...(application === null ? [] : [end("198.18.1.10:40000", "198.18.2.10:80", application)]),
  end("127.0.0.1:15001", "198.18.1.10:40000", { mark: MARK, ...proxy }),
];
/** The proxy's end of a connection dialled from its client's address, and the application's. */
const inbound = (application: End | null, proxy: End): TcpSocket[] => [
  ...(application === null ? [] : [end("198.18.1.10:8080", "198.18.2.10:50000", application)]),
  end("198.18.2.10:50000", "198.18.1.10:8080", { mark: MARK, ...proxy }),
];
const plaintext = (proxy: End): TcpSocket[] => [end("198.18.1.10:15006", "198.18.2.10:50000", { mark: MARK, ...proxy })];
const count = (sockets: readonly TcpSocket[]): number => carriedOf(sockets, REDIRECT_DEFAULTS).length;

const ORPHAN: End = { held: false };
const is = (state: TcpState, rest: End = {}): End => ({ state, ...rest });

describe("carried connections", () => {
  test("both ends established, or on the way to it", () => {
    expect(count(outbound({}, {}))).toBe(1);
    expect(count(inbound({}, {}))).toBe(1);
    expect(count(plaintext({}))).toBe(1);
    expect(count(outbound(is("opening"), is("opening", ORPHAN)))).toBe(1);
    expect(count([...outbound({}, {}), ...inbound({}, {}), ...plaintext({})])).toBe(3);
  });

  test("half closed, and held at both ends: whichever side has ended", () => {
    expect(count(outbound(is("finWait2"), is("closeWait")))).toBe(1);
    expect(count(outbound(is("closeWait"), is("finWait2")))).toBe(1);
    expect(count(inbound(is("closeWait"), is("finWait2")))).toBe(1);
    expect(count(inbound(is("finWait2"), is("closeWait")))).toBe(1);
    expect(count(plaintext(is("closeWait")))).toBe(1);
  });

  test("the application has closed it: what is left for the kernel carries nothing", () => {
    expect(count(outbound(is("finWait2", ORPHAN), is("closeWait")))).toBe(0);
    expect(count(inbound(is("finWait2", ORPHAN), is("closeWait")))).toBe(0);
    // The kernel forgets such an end after a minute.
    expect(count(outbound(null, is("closeWait")))).toBe(0);
  });

  test("the proxy has closed it", () => {
    expect(count(outbound(is("closeWait"), is("finWait2", ORPHAN)))).toBe(0);
    expect(count(inbound(is("closeWait"), is("finWait2", ORPHAN)))).toBe(0);
    expect(count(plaintext(is("finWait2", ORPHAN)))).toBe(0);
    expect(count(plaintext(is("finWait1", { held: false, unackedBytes: 1 })))).toBe(0);
    expect(count(plaintext(is("lastAck", { held: false, unackedBytes: 1 })))).toBe(0);
    expect(count(plaintext(is("closing", { held: false, unackedBytes: 1 })))).toBe(0);
  });

  test("closed, with bytes that the other end has still to get", () => {
    for (const state of ["finWait1", "lastAck", "closing"] as const) expect(count(plaintext(is(state, { held: false, unackedBytes: 2 })))).toBe(1);
    // The application sent and left: its bytes go on to the proxy, which has ended its own side before.
    expect(count(outbound(is("lastAck", { held: false, unackedBytes: 9_000 }), is("finWait2")))).toBe(1);
    expect(count(inbound(is("lastAck", { held: false, unackedBytes: 9_000 }), is("finWait2")))).toBe(1);
    // Nobody is there to get them.
    expect(count(outbound(is("finWait2", ORPHAN), is("lastAck", { held: false, unackedBytes: 9_000 })))).toBe(0);
  });

  test("tunnels are none: accepted or pooled, to another place or to a workload of the same namespace", () => {
    expect(count([end("198.18.1.10:15008", "198.18.2.10:50000", { mark: MARK })])).toBe(0);
    expect(count([end("198.18.1.10:41000", "198.18.2.10:15008", { mark: MARK })])).toBe(0);
    expect(count([end("198.18.1.10:41000", "198.18.1.10:15008", { mark: MARK }), end("198.18.1.10:15008", "198.18.1.10:41000", { mark: MARK })])).toBe(0);
  });

  test("an application's own: to itself, and past the mesh", () => {
    expect(count([end("127.0.0.1:42000", "127.0.0.1:8080"), end("127.0.0.1:8080", "127.0.0.1:42000")])).toBe(0);
    expect(count([end("198.18.1.10:43000", "198.18.2.10:80")])).toBe(0);
  });

  test("only the mask's bits of a mark are the proxy's", () => {
    expect(count(inbound({}, { mark: 0x7000 | MARK }))).toBe(1);
    expect(count(inbound({}, { mark: MARK | 0x800 }))).toBe(0);
  });
});

describe("translated connections", () => {
  /** Of a connection that came from port 50000 and is seen here from port 31473. */
  const tracked = (originalZone: number): TrackedConnection => ({
    original: { from: at("198.18.2.10:50000"), to: at("198.18.1.10:8080") }, reply: { from: at("198.18.1.10:8080"), to: at("198.18.2.10:31473") }, originalZone, ended: false, id: 1,
  });
  const application = (rest: End): TcpSocket => end("198.18.1.10:8080", "198.18.2.10:31473", rest);
  const dialled = (rest: End): TcpSocket => end("198.18.2.10:50000", "198.18.1.10:8080", { mark: MARK, ...rest });
  const translated = (zone: number, ...sockets: TcpSocket[]): number => translatedOf(sockets, [tracked(zone)], REDIRECT_DEFAULTS).length;

  test("a client's own counts as long as the application has something of it", () => {
    expect(translated(0, application({}))).toBe(1);
    expect(translated(0, application(is("closeWait")))).toBe(1);
    expect(translated(0, application(is("finWait2", ORPHAN)))).toBe(0);
    expect(translated(0)).toBe(0);
  });

  test("one of the application's own, to somewhere else", () => {
    expect(translated(0, end("198.18.2.10:50000", "198.18.1.10:8080"))).toBe(1);
  });

  test("what we dialled: half closed it carries something while both ends are held", () => {
    expect(translated(2, dialled({}), application({}))).toBe(1);
    expect(translated(2, dialled(is("finWait2")), application(is("closeWait")))).toBe(1);
    expect(translated(2, dialled(is("closeWait")), application(is("finWait2", ORPHAN)))).toBe(0);
    expect(translated(2, application(is("closeWait")))).toBe(0);
  });
});
