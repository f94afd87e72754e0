// How the text of a flag or a variable becomes a value. Strict: anything but the form that is described is refused.

import { type Cidr, formatCidr, type IpAddress, parseCidr, parseIp, parsePort, parseSocketAddress, type SocketAddress } from "../core/ip.ts";
import { err, ok, type Result } from "../core/result.ts";
import { parseTrustDomain, type TrustDomain } from "../core/spiffe.ts";

/** Where a text was read: the environment has a few older forms that flags do not. */
export type Origin = "flag" | "environment";

export interface SettingType<T> {
  /** How a value looks in the help: `DURATION`. */
  readonly placeholder: string;
  /** What is wanted, for the message about a bad value. */
  readonly wanted: string;
  /** @returns the value, or what is wrong with it beyond `wanted` ("" when that says it all). */
  readonly parse: (text: string, origin: Origin) => Result<T, string>;
  readonly format: (value: T) => string;
}

const UNIT_MS: Readonly<Record<string, number>> = { ms: 1, s: 1000, m: 60_000, h: 3_600_000, d: 86_400_000 };
/** setTimeout's own limit; a longer deadline is as good as none and would fire at once. */
export const DURATION_MS_MAX = 2 ** 31 - 1;
const CERTIFICATE_LIFETIME_MS_MAX = 3650 * 86_400_000;

/** `1m30s`, `300ms`, `0`. Parts in falling order of unit, each unit once. Null when malformed. */
export function parseDuration(text: string): number | null {
  if (text === "0") return 0;
  const parts = /^(?:(\d{1,9})d)?(?:(\d{1,9})h)?(?:(\d{1,9})m(?!s))?(?:(\d{1,9}(?:\.\d{1,3})?)s)?(?:(\d{1,12})ms)?$/.exec(text);
  if (parts === null || text === "") return null;
  const [, d, h, m, s, ms] = parts;
  return Number(d ?? 0) * UNIT_MS["d"]! + Number(h ?? 0) * UNIT_MS["h"]! + Number(m ?? 0) * UNIT_MS["m"]! + Math.round(Number(s ?? 0) * 1000) + Number(ms ?? 0);
}

/** `1m30s` for 90000. */
export function formatDuration(ms: number): string {
  if (ms === 0) return "0";
  let rest = ms;
  let text = "";
  for (const unit of ["d", "h", "m", "s", "ms"] as const) {
    const count = Math.floor(rest / UNIT_MS[unit]!);
    if (count > 0) text += `${count}${unit}`;
    rest -= count * UNIT_MS[unit]!;
  }
  return text;
}

/** The reference writes durations in the environment as bare seconds too. */
function durationUpTo(maxMs: number, minMs: number): SettingType<number> {
  return {
    placeholder: "DURATION",
    wanted: `a duration such as 300ms, 10s or 1m30s, from ${formatDuration(minMs)} to ${formatDuration(maxMs)}`,
    parse(text, origin) {
      const ms = origin === "environment" && /^\d{1,9}$/.test(text) ? Number(text) * 1000 : parseDuration(text);
      if (ms === null) return err(/^\d+$/.test(text) ? "the unit is missing" : "");
      return ms >= minMs && ms <= maxMs ? ok(ms) : err("");
    },
    format: formatDuration,
  };
}

/** Milliseconds; 0 is allowed and means what the setting says it means. */
export const duration = durationUpTo(DURATION_MS_MAX, 0);
/** Milliseconds, more than none. */
export const timeout = durationUpTo(DURATION_MS_MAX, 1);
/** Milliseconds; lifetimes are compared, never waited for in one go. */
export const lifetime = durationUpTo(CERTIFICATE_LIFETIME_MS_MAX, 60_000);

export function integer(min: number, max: number, placeholder = "N"): SettingType<number> {
  return {
    placeholder,
    wanted: `a whole number from ${min} to ${max}`,
    parse(text) {
      const value = /^(0|[1-9]\d{0,15})$/.test(text) ? Number(text) : /^0x[0-9a-fA-F]{1,8}$/.test(text) ? Number.parseInt(text.slice(2), 16) : Number.NaN;
      return value >= min && value <= max ? ok(value) : err("");
    },
    format: String,
  };
}

/** Printed as hexadecimal. */
export const mark: SettingType<number> = { ...integer(1, 0xffff_ffff, "MARK"), wanted: "a packet mark such as 0x539 or 1337", format: (value) => `0x${value.toString(16)}` };

export const share: SettingType<number> = {
  placeholder: "SHARE",
  wanted: "a number from 0 to 1, such as 0.01",
  parse: (text) => (/^(0|1|0?\.\d{1,9}|1\.0+)$/.test(text) ? ok(Number(text)) : err("")),
  format: String,
};

export const boolean: SettingType<boolean> = {
  placeholder: "true|false",
  wanted: "true or false",
  parse: (text, origin) => {
    if (text === "true" || (origin === "environment" && text === "1")) return ok(true);
    if (text === "false" || (origin === "environment" && text === "0")) return ok(false);
    return err("");
  },
  format: String,
};

export function oneOf<const V extends string>(values: readonly V[], fromEnvironment: Readonly<Record<string, V>> = {}): SettingType<V> {
  return {
    placeholder: values.join("|"),
    wanted: `one of ${values.join(", ")}`,
    parse: (text, origin) => {
      const value = values.find((each) => each === text) ?? (origin === "environment" && Object.hasOwn(fromEnvironment, text) ? fromEnvironment[text] : undefined);
      return value === undefined ? err("") : ok(value);
    },
    format: (value) => value,
  };
}

const TEXT_CHARS_MAX = 4096;

/** Printable text on one line. */
export function text(placeholder: string, wanted: string, pattern: RegExp = /^[\x20-\x7e]*$/): SettingType<string> {
  return { placeholder, wanted, parse: (value) => (value.length <= TEXT_CHARS_MAX && pattern.test(value) ? ok(value) : err("")), format: (value) => value };
}

export const path: SettingType<string> = {
  placeholder: "PATH",
  wanted: "a path",
  parse: (value) => (value !== "" && value.length <= TEXT_CHARS_MAX && !value.includes("\0") ? ok(value) : err("")),
  format: (value) => value,
};

/** A path, or the thing itself. */
export const pathOrPem: SettingType<string> = {
  placeholder: "PATH|PEM",
  wanted: "a path, or PEM text",
  parse: (value) => (value !== "" && !value.includes("\0") ? ok(value) : err("")),
  format: (value) => (value.includes("-----BEGIN") ? "(PEM)" : value),
};

export const listenAddress: SettingType<SocketAddress> = {
  placeholder: "IP:PORT",
  wanted: "an address such as 127.0.0.1:15000 or [::]:15020",
  parse(value) {
    const address = parseSocketAddress(value);
    return address === null ? err("") : ok(address);
  },
  format: ({ ip, port }) => (ip.includes(":") ? `[${ip}]:${port}` : `${ip}:${port}`),
};

export interface HostPort {
  readonly host: string;
  readonly port: number;
}

/** `ca.example:15012`, with or without `https://`: a name or an address, and a port. */
export const hostPort: SettingType<HostPort> = {
  placeholder: "HOST:PORT",
  wanted: "a host and a port such as istiod.istio-system.svc:15012",
  parse(value) {
    if (value.startsWith("http://")) return err("it is only spoken to over TLS");
    const rest = value.startsWith("https://") ? value.slice("https://".length).replace(/\/$/, "") : value;
    const split = /^(?:\[([0-9A-Fa-f:.]+)\]|([A-Za-z0-9]([A-Za-z0-9._-]{0,251}[A-Za-z0-9])?)):(\d{1,5})$/.exec(rest);
    const port = split === null ? null : parsePort(split[4]!);
    return split === null || port === null || port === 0 ? err("") : ok({ host: split[1] ?? split[2]!, port });
  },
  format: ({ host, port }) => (host.includes(":") ? `[${host}]:${port}` : `${host}:${port}`),
};

export const trustDomain: SettingType<TrustDomain> = {
  placeholder: "DOMAIN",
  wanted: "a trust domain: lower-case letters, digits, dots, hyphens and underscores",
  parse(value) {
    const domain = parseTrustDomain(value);
    return domain === null ? err("") : ok(domain);
  },
  format: (value) => value,
};

export const trustDomainList: SettingType<readonly TrustDomain[]> = {
  placeholder: "DOMAIN,...",
  wanted: "trust domains separated by commas",
  parse(value) {
    const domains = value === "" ? [] : value.split(",").map((each) => parseTrustDomain(each.trim()));
    const good = domains.filter((each) => each !== null);
    return good.length === domains.length ? ok(good) : err(`"${value.split(",")[domains.indexOf(null)]}" is none`);
  },
  format: (value) => value.join(","),
};

const LIST_ITEMS_MAX = 1000;

function listOf(placeholder: string, wanted: string, pattern: RegExp): SettingType<readonly string[]> {
  return {
    placeholder,
    wanted,
    parse(value) {
      const items = value === "" ? [] : value.split(",").map((item) => item.trim());
      const bad = items.find((item) => !pattern.test(item));
      if (bad !== undefined) return err(`${JSON.stringify(bad)} is none`);
      return items.length <= LIST_ITEMS_MAX ? ok(items) : err(`more than ${LIST_ITEMS_MAX}`);
    },
    format: (value) => value.join(","),
  };
}

export const nameList = listOf("NAME,...", "names of lower-case letters, digits, dots and hyphens, separated by commas", /^[a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?$/);
export const accountList = listOf("NAMESPACE/NAME,...", "service accounts as NAMESPACE/NAME, separated by commas", /^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?\/[a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?$/);

export const cidrList: SettingType<readonly Cidr[]> = {
  placeholder: "CIDR,…",
  wanted: "address ranges such as 198.18.128.0/20, separated by commas",
  parse(value) {
    const cidrs = value === "" ? [] : value.split(",").map((item) => parseCidr(item.trim()));
    const good = cidrs.filter((cidr) => cidr !== null);
    return good.length === cidrs.length ? ok(good) : err(`"${value.split(",")[cidrs.indexOf(null)]}" is none`);
  },
  format: (value) => value.map(formatCidr).join(","),
};

export const addressList: SettingType<readonly IpAddress[]> = {
  placeholder: "IP,...",
  wanted: "IP addresses separated by commas",
  parse(value) {
    const addresses = value === "" ? [] : value.split(",").map((item) => parseIp(item.trim()));
    const good = addresses.filter((address) => address !== null);
    return good.length === addresses.length ? ok(good) : err(`"${value.split(",")[addresses.indexOf(null)]}" is none`);
  },
  format: (value) => value.join(","),
};

/** How many data threads: a count, or a share of the processors. */
export type WorkerCount = { readonly kind: "count"; readonly count: number } | { readonly kind: "percent"; readonly percent: number };
export const WORKERS_MAX = 64;

export const workerCount: SettingType<WorkerCount> = {
  placeholder: "N|N%",
  wanted: `a number of threads from 0 (one per processor) to ${WORKERS_MAX}, or a share of the processors such as 50%`,
  parse(value) {
    const split = /^(0|[1-9]\d{0,2})(%?)$/.exec(value);
    if (split === null) return err("");
    const number = Number(split[1]);
    if (split[2] === "%") return number >= 1 && number <= 100 ? ok({ kind: "percent", percent: number }) : err("");
    if (number > WORKERS_MAX) return err("");
    return ok(number === 0 ? { kind: "percent", percent: 100 } : { kind: "count", count: number });
  },
  format: (value) => (value.kind === "count" ? String(value.count) : `${value.percent}%`),
};

/** More than a machine has. */
const PROCESSORS_MAX = 4096;

/** `4`; in the environment a quantity of Kubernetes too (`1.5`, `500m`), of which a part of a processor counts as one. */
export const processors: SettingType<number> = {
  placeholder: "N",
  wanted: `a number of processors from 1 to ${PROCESSORS_MAX}`,
  parse(value, origin) {
    const split = (origin === "environment" ? /^(\d{1,7}(?:\.\d{1,9})?)(m?)$/ : /^(\d{1,4})()$/).exec(value);
    const count = split === null ? 0 : Math.ceil(Number(split[1]) / (split[2] === "m" ? 1000 : 1));
    return count >= 1 && count <= PROCESSORS_MAX ? ok(count) : err("");
  },
  format: String,
};
