import { describe, expect, test } from "bun:test";
import { dataPlaneConfig } from "./data-plane-config.ts";
import { parseLogFilter } from "./log-filter.ts";
import { formatDuration, parseDuration } from "./setting-types.ts";
import { describeSettings, drainMs, entries, nearestOf, parseSettings, type Role, workerThreads } from "./settings.ts";
import { ROLES, UNSUPPORTED_VARIABLES } from "./settings-table.ts";

const good = (role: Role, args: string[], environment: Record<string, string> = {}) => {
  const parsed = parseSettings(role, args, environment);
  if (!parsed.ok) throw new Error(parsed.error.join("\n"));
  return parsed.value;
};
const errors = (role: Role, args: string[], environment: Record<string, string> = {}): string => {
  const parsed = parseSettings(role, args, environment);
  return parsed.ok ? "" : parsed.error.join("\n");
};
const UP = ["--config", "mesh"];

describe("precedence", () => {
  test("flags beat variables beat defaults, and each value knows where it came from", () => {
    expect(good("up", UP).settings.connectTimeoutMs).toBe(10_000);
    expect(good("up", UP, { CONNECT_TIMEOUT: "3s" }).settings.connectTimeoutMs).toBe(3000);
    const parsed = good("up", [...UP, "--connect-timeout", "1m30s"], { CONNECT_TIMEOUT: "3s", NODE_NAME: "n7" });
    expect(parsed.settings.connectTimeoutMs).toBe(90_000);
    expect([parsed.origins.connectTimeoutMs, parsed.origins.node, parsed.origins.network]).toEqual(["--connect-timeout", "NODE_NAME", "default"]);
  });

  test("a variable set to nothing is not set, and the first of several names counts", () => {
    expect(good("up", UP, { CLUSTER_ID: "", ISTIO_META_CLUSTER_ID: "east" }).settings.clusterId).toBe("east");
    expect(good("up", UP, { CLUSTER_ID: "west", ISTIO_META_CLUSTER_ID: "east" }).settings.clusterId).toBe("west");
  });

  test("a variable of another role does not matter", () => {
    expect(good("ztunnel", ["--config", "mesh", "--ca-address", "a:1"], { CA_LISTEN: "nonsense" }).settings.caListen).toBeNull();
  });
});

describe("flags", () => {
  test("may be joined with =, and booleans may stand alone or be negated", () => {
    expect(good("up", ["--config=mesh", "--no-ipv6"]).settings.ipv6).toBe(false);
    expect(good("up", ["--config=mesh", "--ipv6"], { IPV6_ENABLED: "false" }).settings.ipv6).toBe(true);
    expect(good("up", ["--config=mesh", "--ipv6", "false"]).settings.ipv6).toBe(false);
  });

  test("an unknown one names the nearest, or the role that has it", () => {
    expect(errors("up", [...UP, "--conect-timeout", "1s"])).toContain("did you mean --connect-timeout?");
    expect(errors("up", [...UP, "--no-such-thing-at-all-anywhere=1"])).toContain("is unknown (weft up --help lists them)");
    expect(errors("ztunnel", [...UP, "--ca-address", "a:1", "--ca-key", "k"])).toBe("--ca-key belongs to weft up and weft ca, not to weft ztunnel");
    expect(nearestOf("trust-domian", ["trust-domain", "drain"])).toBe("trust-domain");
  });

  test("without a value, given twice, or not a flag at all is refused", () => {
    expect(errors("up", ["--config"])).toContain("--config needs a value");
    expect(errors("up", ["--config", "--workers", "2"])).toContain("--config needs a value");
    expect(errors("up", [...UP, "--node", "a", "--node", "b"])).toContain("--node is given twice");
    expect(errors("up", [...UP, "stray"])).toContain('"stray" is not understood');
  });

  test("what is required is asked for by both its names", () => {
    expect(errors("up", [])).toContain("--config is required (or WEFT_CONFIG)");
    expect(errors("ztunnel", UP)).toContain("--ca-address is required (or CA_ADDRESS)");
  });
});

describe("bad values", () => {
  test("name the flag or the variable, what was seen and what was wanted, all at once", () => {
    const found = errors("up", [...UP, "--workers", "lots", "--connect-timeout", "10"], { TRUST_DOMAIN: "Bad Domain", PACKET_MARK: "0" });
    expect(found).toContain('--workers: "lots" is not a number of threads from 0');
    expect(found).toContain('--connect-timeout: "10" is not a duration');
    expect(found).toContain("the unit is missing");
    expect(found).toContain('TRUST_DOMAIN: "Bad Domain" is not a trust domain');
    expect(found).toContain('PACKET_MARK: "0" is not a packet mark');
  });

  test.each([
    ["--admin-address", "15000"], ["--admin-address", "localhost:15000"], ["--admin-address", "127.0.0.1:99999"], ["--drain", "-5s"], ["--drain", "5x"], ["--drain", "1s1m"],
    ["--drain", "40d"], ["--pool-streams-max", "0"], ["--pool-streams-max", "1e3"], ["--pool-streams-max", "010"], ["--access-log-sample", "1.5"],
    ["--access-log-sample", "NaN"], ["--same-node", "PLAIN"], ["--node", "a b"], ["--node", "../x"], ["--ipv6=yes", ""], ["--log", "loud"], ["--log", "a=b=c"],
    ["--log", "info,ztunnel=everything"], ["--trust-domain-aliases", "a,,b"], ["--workers", "65"], ["--workers", "101%"], ["--http2-frame", "100"], ["--config=", ""],
  ])("%s %s is refused", (flag, value) => {
    const args = value === "" ? [flag] : [flag, value];
    const found = errors("up", flag.startsWith("--config") ? args : [...UP, ...args]);
    if (flag === "--log" && value === "loud") return expect(found).toBe(""); // a scope by that name
    expect(found).not.toBe("");
  });

  test("contradictions between good values are errors too", () => {
    expect(errors("up", [...UP, "--http2-connection-window", "65535"])).toContain("smaller than --http2-stream-window");
    expect(errors("up", [...UP, "--ca-key", "k.pem"])).toContain("go together");
  });
});

describe("the reference's variables", () => {
  test("mean what they mean there", () => {
    const { settings } = good("ztunnel", [], {
      LOCAL_XDS_PATH: "/etc/mesh", CA_ADDRESS: "https://istiod.istio-system.svc:15012", CA_ROOT_CA: "/var/run/root.pem", SECRET_TTL: "86400", ENABLE_ORIG_SRC: "true",
      CONNECTION_TERMINATION_DEADLINE: "20", ZTUNNEL_WORKER_THREADS: "50%", POOL_UNUSED_RELEASE_TIMEOUT: "60s", IPV6_ENABLED: "false", RUST_LOG: "info,access=off",
      LOG_FORMAT: "json", KEEPALIVE_TIME: "90s", HTTP2_FRAME_SIZE: "65536", PACKET_MARK: "1337", ISTIO_META_NETWORK: "net1",
    });
    expect(settings).toMatchObject({
      config: "/etc/mesh", caAddress: { host: "istiod.istio-system.svc", port: 15012 }, certificateLifetimeMs: 86_400_000, preserveSource: "require",
      poolIdleMs: 60_000, ipv6: false, logFormat: "json", keepaliveMs: 90_000, frameBytes: 65536, packetMark: 0x539, network: "net1",
    });
    expect(drainMs(settings)).toBe(20_000);
    expect(workerThreads({ ...settings, processors: 8 })).toBe(4);
    expect(dataPlaneConfig(settings)).toMatchObject({ accessLog: "off", preserveSource: "require", keepaliveIdleMs: 90_000, trustDomains: { own: "cluster.local", aliases: [] } });
  });

  test("what cannot be honoured is refused or warned of, never silently dropped", () => {
    expect(errors("up", UP, { XDS_ADDRESS: "istiod:15012" })).toContain("XDS_ADDRESS is set: `weft up` reads --config");
    expect(good("up", UP, { KEEPALIVE_RETRIES: "3" }).warnings).toEqual(["KEEPALIVE_RETRIES is set and has no effect: 9 probes are sent"]);
    // None is both, for any role.
    const roles = (name: string) => entries().filter(([, spec]) => spec.variables.includes(name)).flatMap(([, spec]) => spec.roles);
    expect(UNSUPPORTED_VARIABLES.filter((unsupported) => roles(unsupported.name).some((role) => unsupported.roles?.includes(role) !== true))).toEqual([]);
  });

  test("a control plane is named as the reference names it, instead of a directory", () => {
    const environment = { XDS_ADDRESS: "https://istiod.istio-system.svc:15012", XDS_ROOT_CA: "/root.pem", ALT_XDS_HOSTNAME: "istiod", CA_ADDRESS: "istiod:15012", INPOD_UDS: "/ztunnel.sock", POD_NAME: "zt-1", POD_NAMESPACE: "istio-system" };
    expect(good("ztunnel", [], environment).settings).toMatchObject({
      config: null, xdsAddress: { host: "istiod.istio-system.svc", port: 15012 }, xdsRoot: "/root.pem", xdsHostname: "istiod", zdsSocket: "/ztunnel.sock", podName: "zt-1", podNamespace: "istio-system",
    });
    expect(errors("ztunnel", [], { CA_ADDRESS: "istiod:15012" })).toContain("--config or --xds-address is required (or WEFT_CONFIG, XDS_ADDRESS)");
    expect(errors("ztunnel", ["--config", "mesh"], environment)).toContain("--config and --xds-address exclude each other");
  });

  test("the drain ends before the grace period does", () => {
    expect(drainMs(good("up", UP).settings)).toBe(5000);
    expect(drainMs(good("up", UP, { TERMINATION_GRACE_PERIOD_SECONDS: "30" }).settings)).toBe(25_000);
    expect(drainMs(good("up", UP, { TERMINATION_GRACE_PERIOD_SECONDS: "10" }).settings)).toBe(9000);
  });
});

describe("the table", () => {
  test("has each flag and each variable once, and every default parses back to itself", () => {
    const flags = entries().map(([, spec]) => spec.flag);
    const variables = entries().flatMap(([, spec]) => spec.variables);
    expect(new Set(flags).size).toBe(flags.length);
    expect(new Set(variables).size).toBe(variables.length);
    for (const [key, spec] of entries()) {
      expect(spec.roles.every((role) => ROLES.includes(role))).toBe(true);
      if (spec.fallback === null) continue;
      const parsed = spec.type.parse(spec.type.format(spec.fallback), "flag");
      if (key === "network") continue; // empty: not a flag's value
      expect(parsed).toEqual({ ok: true, value: spec.fallback });
    }
  });

  test("an inline token is not shown", () => {
    const parsed = good("ztunnel", [...UP, "--ca-address", "a:1", "--auth-token", "s3cret"]);
    expect(JSON.stringify(describeSettings("ztunnel", parsed))).not.toContain("s3cret");
  });
});

test("durations are read and written in one form", () => {
  for (const [text, ms] of [["300ms", 300], ["10s", 10_000], ["1.5s", 1500], ["1m30s", 90_000], ["2h", 7_200_000], ["1d1h", 90_000_000], ["0", 0]] as const) {
    expect(parseDuration(text)).toBe(ms);
    expect(parseDuration(formatDuration(ms))).toBe(ms);
  }
  for (const text of ["", "s", "10", "1s1m", "1 s", "+1s", "1e3s", "1s ", "٣s"]) expect(parseDuration(text)).toBeNull();
});

describe("log filter", () => {
  const filter = (text: string) => {
    const parsed = parseLogFilter(text);
    if (!parsed.ok) throw new Error(parsed.error);
    return parsed.value;
  };

  test("the longest scope that matches decides, with :: and . alike", () => {
    const wanted = filter("warn,access=off,ztunnel=debug,ztunnel::pool=error,dns");
    expect(wanted.enabled("ca", "warn")).toBe(true);
    expect(wanted.enabled("ca", "info")).toBe(false);
    expect(wanted.enabled("access", "error")).toBe(false);
    expect(wanted.enabled("ztunnel.inbound", "debug")).toBe(true);
    expect(wanted.enabled("ztunnel::pool", "warn")).toBe(false);
    expect(wanted.enabled("ztunnels", "debug")).toBe(false);
    expect(wanted.enabled("dns", "trace")).toBe(true);
    expect(filter("off").enabled("ca", "error")).toBe(false);
    expect(filter("").text).toBe("info");
  });

  test("its text says the same again", () => {
    const text = filter("debug,access=off,a::b=warn").text;
    expect(filter(text).text).toBe(text);
  });

  test("nonsense is refused", () => {
    for (const text of ["access=loud", "a b", "=info", "x".repeat(200), Array.from({ length: 65 }, (_, i) => `s${i}=info`).join(",")]) {
      expect(parseLogFilter(text).ok).toBe(false);
    }
  });
});
