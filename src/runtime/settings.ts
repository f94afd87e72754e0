// From the command line and the environment to settings, once, at the start. Unknown flags, bad values and missing ones are all
// reported together, each by the name the operator wrote. Reads no file and no global.

import { availableParallelism } from "node:os";
import { err, ok, type Result } from "../core/result.ts";
import { type Role, type SettingKey, SETTINGS, type Settings, type SettingSpec, UNSUPPORTED_VARIABLES } from "./settings-table.ts";

export type { Role, Settings } from "./settings-table.ts";

export interface ParsedSettings {
  readonly settings: Settings;
  /** Where each value came from: `--config`, `NODE_NAME`, or `default`. For /config_dump and the start-up log. */
  readonly origins: Readonly<Record<SettingKey, string>>;
  readonly warnings: readonly string[];
}

type Environment = Readonly<Record<string, string | undefined>>;
const VALUE_SHOWN_CHARS = 80;

/** @param args what follows the verb. @returns every error found, one line each. */
export function parseSettings(role: Role, args: readonly string[], environment: Environment): Result<ParsedSettings, readonly string[]> {
  const errors: string[] = [];
  const flags = readFlags(role, args, errors);
  const values: Record<string, unknown> = {};
  const origins: Record<string, string> = {};
  for (const [key, spec] of entries()) {
    if (!spec.roles.includes(role)) {
      values[key] = spec.fallback;
      origins[key] = "default";
      continue;
    }
    const { value, origin } = readOne(role, spec, flags, environment, errors);
    values[key] = value;
    origins[key] = origin;
  }
  const warnings = unsupported(role, environment, errors);
  if (errors.length > 0) return err(errors);
  const settings = values as unknown as Settings;
  errors.push(...contradictions(role, settings));
  if (errors.length > 0) return err(errors);
  return ok({ settings, origins: origins as Record<SettingKey, string>, warnings });
}

/** How long connections may go on after SIGTERM. */
export function drainMs(settings: Settings): number {
  if (settings.drainMs !== null) return settings.drainMs;
  const grace = settings.gracePeriodMs;
  if (grace === null) return DRAIN_MS;
  return Math.max(0, grace - (grace <= 10_000 ? 1_000 : 5_000));
}
export const DRAIN_MS = 5_000;

/** Data threads of this process. */
export function workerThreads({ workers, processors }: Pick<Settings, "workers" | "processors">): number {
  return workers.kind === "count" ? workers.count : Math.max(1, Math.ceil(((processors ?? availableParallelism()) * workers.percent) / 100));
}

/** Every setting as text with its origin. Secrets given inline are not shown. */
export function describeSettings(role: Role, parsed: ParsedSettings): Record<string, { value: string | null; origin: string }> {
  const described: Record<string, { value: string | null; origin: string }> = {};
  for (const [key, spec] of entries()) {
    if (!spec.roles.includes(role)) continue;
    const value = parsed.settings[key];
    const text = value === null ? null : spec.type.format(value);
    described[spec.flag] = { value: key === "authToken" && text !== null && !text.startsWith("/") ? "(not shown)" : text, origin: parsed.origins[key] };
  }
  return described;
}

export function entries(): [SettingKey, SettingSpec][] {
  return Object.entries(SETTINGS) as unknown as [SettingKey, SettingSpec][];
}

function readOne(role: Role, spec: SettingSpec, flags: ReadonlyMap<string, string>, environment: Environment, errors: string[]): { value: unknown; origin: string } {
  const flag = flags.get(spec.flag);
  const variable = spec.variables.find((each) => (environment[each] ?? "") !== "");
  if (flag === undefined && variable === undefined) {
    if (spec.required?.includes(role) === true) errors.push(`--${spec.flag} is required (or ${spec.variables[0]}): ${spec.help.toLowerCase()}`);
    return { value: spec.fallback, origin: "default" };
  }
  const origin = flag !== undefined ? `--${spec.flag}` : variable!;
  const seen = flag ?? environment[variable!]!;
  const parsed = spec.type.parse(seen, flag !== undefined ? "flag" : "environment");
  if (parsed.ok) return { value: parsed.value, origin };
  errors.push(`${origin}: ${show(seen)} is not ${spec.type.wanted}${parsed.error === "" ? "" : `: ${parsed.error}`}`);
  return { value: spec.fallback, origin };
}

/** `--flag value`, `--flag=value`; a boolean may stand alone or as `--no-flag`. */
function readFlags(role: Role, args: readonly string[], errors: string[]): Map<string, string> {
  const flags = new Map<string, string>();
  for (let i = 0; i < args.length; i++) {
    const argument = args[i]!;
    const split = /^--([a-z0-9][a-z0-9-]*)(?:=([\s\S]*))?$/.exec(argument);
    if (split === null) {
      errors.push(`${show(argument)} is not understood; options look like --name value`);
      continue;
    }
    const flagName = split[1]!;
    const spec = specOf(role, flagName);
    if (spec === undefined) {
      const negated = flagName.startsWith("no-") ? specOf(role, flagName.slice(3)) : undefined;
      if (negated?.type.placeholder === "true|false" && split[2] === undefined) put(flags, negated.flag, "false", errors);
      else errors.push(unknownFlag(role, flagName));
      if (negated === undefined && split[2] === undefined && args[i + 1]?.startsWith("--") === false) i++;
      continue;
    }
    let value = split[2];
    if (value === undefined && spec.type.placeholder === "true|false" && args[i + 1] !== "true" && args[i + 1] !== "false") value = "true";
    if (value === undefined) {
      value = args[++i];
      if (value === undefined || (value.startsWith("--") && value.length > 2)) {
        errors.push(`--${flagName} needs a value: ${spec.type.wanted}`);
        i--;
        continue;
      }
    }
    put(flags, flagName, value, errors);
  }
  return flags;
}

function put(flags: Map<string, string>, flag: string, value: string, errors: string[]): void {
  if (flags.has(flag)) errors.push(`--${flag} is given twice`);
  flags.set(flag, value);
}

function specOf(role: Role, flag: string): SettingSpec | undefined {
  return entries().find(([, spec]) => spec.flag === flag && spec.roles.includes(role))?.[1];
}

function unknownFlag(role: Role, flag: string): string {
  const elsewhere = entries().find(([, spec]) => spec.flag === flag)?.[1];
  if (elsewhere !== undefined) return `--${flag} belongs to weft ${elsewhere.roles.join(" and weft ")}, not to weft ${role}`;
  const nearest = nearestOf(flag, entries().filter(([, spec]) => spec.roles.includes(role)).map(([, spec]) => spec.flag));
  return `--${flag} is unknown${nearest === null ? "" : `; did you mean --${nearest}?`} (weft ${role} --help lists them)`;
}

function unsupported(role: Role, environment: Environment, errors: string[]): string[] {
  const warnings: string[] = [];
  for (const { name, fatal, message, unless, roles } of UNSUPPORTED_VARIABLES) {
    if (roles?.includes(role) === true) continue;
    const value = environment[name] ?? "";
    if (value === "" || value === unless) continue;
    if (fatal) errors.push(`${name} is set: ${message}`);
    else warnings.push(`${name} is set and has no effect: ${message}`);
  }
  return warnings;
}

/** Relations between settings that no single one can show. */
function contradictions(role: Role, settings: Settings): string[] {
  const found: string[] = [];
  if (SETTINGS.xdsAddress.roles.includes(role)) {
    if (settings.config === null && settings.xdsAddress === null) found.push("--config or --xds-address is required (or WEFT_CONFIG, XDS_ADDRESS): where the configuration comes from");
    if (settings.config !== null && settings.xdsAddress !== null) found.push("--config and --xds-address exclude each other: the configuration comes from one of them");
  }
  if (settings.connectionWindowBytes < settings.streamWindowBytes) {
    found.push("--http2-connection-window is smaller than --http2-stream-window: one connection could stall its whole tunnel");
  }
  if ((settings.caCertificate === null) !== (settings.caKey === null)) found.push("--ca-certificate and --ca-key go together");
  if (settings.caTrustBundle !== null && settings.caCertificate === null) found.push("--ca-trust-bundle needs --ca-certificate and --ca-key");
  if (settings.certificateLifetimeMs > settings.certificateLifetimeMaxMs) found.push("--certificate-lifetime is longer than --certificate-lifetime-max");
  return found;
}

/** The candidate that takes the fewest edits, if they are few. */
export function nearestOf(word: string, candidates: readonly string[]): string | null {
  let best: string | null = null;
  let bestDistance = Math.max(2, Math.floor(word.length / 3)) + 1;
  for (const candidate of candidates) {
    const distance = candidate.startsWith(word) && word.length >= 3 ? 1 : editDistance(word.slice(0, 64), candidate);
    if (distance < bestDistance) [best, bestDistance] = [candidate, distance];
  }
  return best;
}

function editDistance(a: string, b: string): number {
  let previous = Array.from({ length: b.length + 1 }, (_, i) => i);
  for (let i = 1; i <= a.length; i++) {
    const row = [i];
    for (let j = 1; j <= b.length; j++) {
      row.push(Math.min(previous[j]! + 1, row[j - 1]! + 1, previous[j - 1]! + (a[i - 1] === b[j - 1] ? 0 : 1)));
    }
    previous = row;
  }
  return previous[b.length]!;
}

function show(text: string): string {
  const short = text.length > VALUE_SHOWN_CHARS ? `${text.slice(0, VALUE_SHOWN_CHARS)}...` : text;
  return JSON.stringify(short);
}
