// Which log lines are wanted: `info,access=off,ztunnel::pool=debug`, as RUST_LOG has it. The longest scope that matches decides.

import { err, ok, type Result } from "../core/result.ts";

export const LEVELS = ["error", "warn", "info", "debug", "trace"] as const;
export type Level = (typeof LEVELS)[number];
const DIRECTIVES_MAX = 64;

export interface LogFilter {
  enabled(scope: string, level: Level): boolean;
  /** Canonical text: the default level first. */
  readonly text: string;
}

/** Rank of what is let through: 0 nothing, 1 errors, .. 5 all. */
type Rank = number;

/**
 * @param text directives separated by commas, later ones over earlier ones; a bare level is the default, a bare scope means all of it,
 * and `scope:level` is `scope=level`, as istioctl writes it. The error says what is wrong.
 */
export function parseLogFilter(text: string): Result<LogFilter, string> {
  let fallback: Rank = rankOf("info")!;
  const scopes = new Map<string, Rank>();
  const directives = text.split(",").map((each) => each.trim()).filter((each) => each !== "");
  if (directives.length > DIRECTIVES_MAX) return err(`more than ${DIRECTIVES_MAX} scopes`);
  for (const directive of directives) {
    const split = /^([A-Za-z0-9_.:-]{1,128}?)(?:(?:=|(?<!:):)([a-zA-Z]+))?$/.exec(directive);
    if (split === null) return err(`"${directive.slice(0, 80)}" is neither a level nor scope=level`);
    const [, head, level] = split as unknown as [string, string, string | undefined];
    if (level === undefined) {
      const bare = rankOf(head);
      if (bare !== null) fallback = bare;
      else scopes.set(normalise(head), LEVELS.length);
      continue;
    }
    const rank = rankOf(level);
    if (rank === null) return err(`"${level}" is not a level; wanted off, error, warn, info, debug or trace`);
    scopes.set(normalise(head), rank);
  }
  return ok(new ScopeFilter(fallback, scopes));
}

class ScopeFilter implements LogFilter {
  readonly #fallback: Rank;
  readonly #scopes: ReadonlyMap<string, Rank>;
  readonly text: string;

  constructor(fallback: Rank, scopes: ReadonlyMap<string, Rank>) {
    this.#fallback = fallback;
    this.#scopes = scopes;
    this.text = [nameOf(fallback), ...[...scopes].map(([scope, rank]) => `${scope}=${nameOf(rank)}`)].join(",");
  }

  enabled(scope: string, level: Level): boolean {
    return LEVELS.indexOf(level) < this.#rank(scope);
  }

  #rank(scope: string): Rank {
    if (this.#scopes.size === 0) return this.#fallback;
    for (let prefix = normalise(scope); ; ) {
      const rank = this.#scopes.get(prefix);
      if (rank !== undefined) return rank;
      const cut = prefix.lastIndexOf(".");
      if (cut < 0) return this.#fallback;
      prefix = prefix.slice(0, cut);
    }
  }
}

/** `a::b` is written `a.b`. */
function normalise(scope: string): string {
  return scope.replaceAll("::", ".");
}

function rankOf(level: string): Rank | null {
  const lower = level.toLowerCase();
  if (lower === "off") return 0;
  const index = LEVELS.indexOf(lower as Level);
  return index < 0 ? null : index + 1;
}

function nameOf(rank: Rank): string {
  return rank === 0 ? "off" : LEVELS[rank - 1]!;
}
