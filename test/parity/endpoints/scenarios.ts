// What is found out about either proxy. Figures that chance or the clock have a part in are told by the bounds that they keep to, so that
// what is found is the same each time.

import { binomialBounds } from "../../kit/binomial.ts";
import { until } from "../../kit/until.ts";
import type { Answer, AskOptions, Balancing, HashKey, Scenario, World } from "./description.ts";

/** A machine that is busy with other tests. */
const PATIENCE_MS = 20_000;

async function askMany(world: World, requests: readonly AskOptions[]): Promise<Answer[]> {
  const answers: Answer[] = [];
  for (const request of requests) answers.push(await world.ask(request));
  return answers;
}

const times = (count: number): AskOptions[] => Array.from({ length: count }, () => ({}));
const endpointsOf = (answers: readonly Answer[]): (number | null)[] => answers.map(({ endpoint }) => endpoint);
const countsOf = ({ fleet }: World, answers: readonly Answer[]): number[] => Array.from({ length: fleet.size }, (_, i) => answers.filter(({ endpoint }) => endpoint === i).length);
const used = (answers: readonly Answer[]): number => new Set(endpointsOf(answers).filter((one) => one !== null)).size;
const failed = (answers: readonly Answer[]): number => answers.filter(({ status }) => status >= 500).length;
const same = (a: readonly unknown[], b: readonly unknown[]): boolean => a.every((one, i) => one === b[i]);

// ── Balancing ───────────────────────────────────────────────────────────────────────────────────────────────────────────────

const BALANCING: readonly Scenario[] = [
  {
    name: "round robin", spec: { endpoints: 5, balancing: "round robin" },
    find: async (world) => {
      const counts = countsOf(world, await askMany(world, times(100)));
      return { "of 100 requests each of 5 endpoints gets": counts.every((count) => count === 20) ? "20" : counts.join(", ") };
    },
  },
  {
    name: "random", spec: { endpoints: 4, balancing: "random" },
    find: async (world) => {
      const [min, max] = binomialBounds(600, 1 / 4);
      const answers = await askMany(world, times(600));
      const turns = endpointsOf(answers).filter((one, i, all) => one === all[i - 1]).length;
      return {
        "each endpoint gets what chance allows": countsOf(world, answers).every((count) => count >= min && count <= max),
        "whether the same endpoint comes twice in a row is chance": turns >= binomialBounds(599, 1 / 4)[0] && turns <= binomialBounds(599, 1 / 4)[1],
      };
    },
  },
  {
    name: "least request", spec: { endpoints: 3, balancing: "least request" },
    find: async (world) => {
      world.fleet.set(0, { delayMs: 400 });
      const answers = (await Promise.all(Array.from({ length: 6 }, (_, client) => askMany(world, Array.from({ length: 40 }, () => ({ from: `127.0.0.${client + 2}` })))))).flat();
      return { "an endpoint that is slow gets less than an even share": countsOf(world, answers)[0]! < answers.length / 3, "requests that fail": failed(answers) };
    },
  },
];

// ── Consistent hashing ──────────────────────────────────────────────────────────────────────────────────────────────────────

const KEYS = 300;
const ENDPOINTS = 5;

function keyed(key: HashKey, n: number): AskOptions {
  const text = `key-${n}`;
  if ("header" in key) return { headers: { [key.header]: text } };
  if ("query" in key) return { path: `/?a=b&${key.query}=${text}` };
  if ("sourceIp" in key) return { from: `127.0.${1 + Math.floor(n / 200)}.${1 + (n % 200)}` };
  return { headers: { cookie: `other=1; ${key.cookie}=${text}` } };
}

const balancedBy = (table: "ring" | "maglev", key: HashKey): Balancing => ({ table, key });
const asked = (key: HashKey): AskOptions[] => Array.from({ length: KEYS }, (_, n) => keyed(key, n));

function hashing(name: string, table: "ring" | "maglev", key: HashKey): Scenario {
  return {
    name, spec: { endpoints: ENDPOINTS, balancing: balancedBy(table, key) },
    find: async (world) => {
      const requests = asked(key);
      const first = endpointsOf(await askMany(world, requests));
      const again = endpointsOf(await askMany(world, requests));
      const shares = Array.from({ length: ENDPOINTS }, (_, i) => first.filter((one) => one === i).length / (KEYS / ENDPOINTS));
      return {
        "a key keeps its endpoint": same(first, again), "each endpoint has between half and twice an even share of the keys": shares.every((share) => share >= 0.5 && share <= 2),
        ...("sourceIp" in key ? {} : { "requests without a key go to": used(await askMany(world, times(80))) === ENDPOINTS ? "all endpoints" : "some endpoints" }),
      };
    },
  };
}

/** What becomes of keys when an endpoint goes and comes. */
function hashingThroughFailure(name: string, table: "ring" | "maglev"): Scenario {
  const key: HashKey = { header: "x-key" };
  return {
    name, spec: { endpoints: ENDPOINTS, balancing: balancedBy(table, key), healthCheck: "http" },
    find: async (world) => {
      const { fleet } = world;
      const requests = asked(key);
      let last: (number | null)[] = [];
      // Before the first check is passed all are used.
      await until("all endpoints to be used", PATIENCE_MS, async () => used(await askMany(world, requests.slice(0, 60))) === fleet.size && fleet.allChecked);
      const first = endpointsOf(await askMany(world, requests));
      const gone = first[0]!;
      const itsKeys = requests.filter((_, n) => first[n] === gone).slice(0, 5);
      fleet.set(gone, "unhealthy");
      await until("the endpoint to be left out", PATIENCE_MS, async () => !endpointsOf(await askMany(world, itsKeys)).includes(gone));
      const without = endpointsOf(await askMany(world, requests));
      fleet.set(gone, "well");
      await until(() => `the endpoint ${gone} to be back; last ${last}`, PATIENCE_MS, async () => (last = endpointsOf(await askMany(world, itsKeys))).every((one) => one === gone));
      const back = endpointsOf(await askMany(world, requests));
      const moved = first.filter((one, n) => one !== gone && one !== without[n]).length / first.filter((one) => one !== gone).length;
      return {
        "its keys go to": new Set(without.filter((_, n) => first[n] === gone)).size === fleet.size - 1 ? "all of the others" : "some of the others",
        "keys of the others that move then": moved === 0 ? "none" : moved < 0.1 ? "fewer than a tenth" : moved < 0.3 ? "between a tenth and three" : "more", "when it is back, all keys are where they were": same(first, back),
      };
    },
  };
}

const COOKIE_MADE: Scenario = {
  name: "hash by a cookie that is made", spec: { endpoints: ENDPOINTS, balancing: { table: "ring", key: { cookie: "k", ttlS: 3600 } } },
  find: async (world) => {
    const firsts = await askMany(world, times(20));
    const cookies = firsts.map(({ setCookie }) => setCookie ?? "");
    const attributes = cookies[0]!.split(";").slice(1).map((part) => part.trim().toLowerCase()).sort();
    const kept = await Promise.all(firsts.map(async ({ endpoint }, i) => (await askMany(world, Array.from({ length: 3 }, () => ({ headers: { cookie: cookies[i]!.split(";")[0]! } })))).every((answer) => answer.endpoint === endpoint && answer.setCookie === null)));
    const own = await askMany(world, Array.from({ length: 5 }, () => ({ headers: { cookie: "k=mine" } })));
    return {
      "a request without it gets one": cookies.every((cookie) => cookie.startsWith("k=")), "its attributes": attributes.join("; "), "each client gets another": new Set(cookies).size === cookies.length,
      "whoever has one keeps the endpoint, and gets no other": kept.every((one) => one), "clients are spread": used(firsts) > 2, "a client's own is taken": used(own) === 1 && own.every(({ setCookie }) => setCookie === null),
    };
  },
};

// ── Health checks ───────────────────────────────────────────────────────────────────────────────────────────────────────────

const HEALTH: readonly Scenario[] = [
  {
    name: "health check by HTTP", spec: { endpoints: 3, balancing: "round robin", healthCheck: "http" },
    find: async (world) => {
      const { fleet } = world;
      const all = async (count: number): Promise<boolean> => used(await askMany(world, times(9))) === count;
      // Before the first check is passed all are used.
      await until("all endpoints to be used", PATIENCE_MS, async () => (await all(3)) && fleet.allChecked);
      fleet.set(1, "unhealthy");
      await until("it to be left out", PATIENCE_MS, () => all(2));
      const without = await askMany(world, times(30));
      fleet.set(1, "well");
      await until("it to be back", PATIENCE_MS, () => all(3));
      fleet.setAll("unhealthy");
      const none = await until("all to be left out", PATIENCE_MS, async () => {
        const answer = await world.ask();
        return answer.endpoint === null ? answer : null;
      });
      fleet.setAll("well");
      await until("all to be back", PATIENCE_MS, () => all(3));
      return { "one that fails gets requests": without.some(({ endpoint }) => endpoint === 1), "requests that fail meanwhile": failed(without), "one that heals is used again": true, "without any that is well the answer is": none.status, "all come back": true };
    },
  },
  {
    name: "health check by TCP", spec: { endpoints: 3, balancing: "round robin", healthCheck: "tcp" },
    find: async (world) => {
      const { fleet } = world;
      const all = async (count: number): Promise<boolean> => used(await askMany(world, times(9))) === count;
      await until("all endpoints to be used", PATIENCE_MS, () => all(3));
      await fleet.close(2);
      const meanwhile: Answer[] = [];
      await until("it to be left out", PATIENCE_MS, async () => {
        const answers = await askMany(world, times(9));
        meanwhile.push(...answers);
        return used(answers) === 2;
      });
      await fleet.open(2);
      await until("it to be back", PATIENCE_MS, () => all(3));
      return { "requests that fail when nobody listens there": failed(meanwhile), "one that listens again is used again": true };
    },
  },
];

// ── Ejection ────────────────────────────────────────────────────────────────────────────────────────────────────────────────

const LONG_MS = 60_000;

/** Asks until an endpoint gets a request. @returns the answers, and how long it had got none. */
async function untilServed(world: World, index: number): Promise<{ readonly answers: Answer[]; readonly afterMs: number }> {
  const { fleet } = world;
  const before = fleet.served(index);
  const sinceMs = fleet.lastMs(index);
  const answers: Answer[] = [];
  await until(`endpoint ${index} to get a request`, PATIENCE_MS, async () => {
    answers.push(await world.ask());
    return fleet.served(index) > before;
  });
  return { answers, afterMs: fleet.lastMs(index) - sinceMs };
}

/** Asks until so many answers in a row come from others. @returns how many requests it got, and the answers. */
async function untilLeftOut(world: World, index: number): Promise<{ readonly requests: number; readonly answers: Answer[] }> {
  const before = world.fleet.served(index);
  const answers: Answer[] = [];
  let without = 0;
  while (without < 4 * world.fleet.size) {
    const served = world.fleet.served(index);
    answers.push(await world.ask());
    without = world.fleet.served(index) === served ? without + 1 : 0;
    if (answers.length > 400) return { requests: Infinity, answers };
  }
  return { requests: world.fleet.served(index) - before, answers };
}

const EJECTION: readonly Scenario[] = [
  {
    name: "ejection by errors in a row, and its time", spec: { endpoints: 3, balancing: "round robin", ejection: { errors: 3, baseMs: 1000, largestPercent: 100 } },
    find: async (world) => {
      await askMany(world, times(9));
      world.fleet.set(0, { status: 500 });
      const out = await untilLeftOut(world, 0);
      const first = await untilServed(world, 0);
      const again = await untilLeftOut(world, 0);
      const second = await untilServed(world, 0);
      world.fleet.set(0, "well");
      await untilServed(world, 0);
      await until("it to have its share again", PATIENCE_MS, async () => countsOf(world, await askMany(world, times(9)))[0] === 3);
      return {
        "errors until it is left out": out.requests, "the client sees them": failed(out.answers) === out.requests,
        "the first time is as configured, and at most a fifth and a look longer": first.afterMs >= 990 && first.afterMs < 1800, "the second time is longer than the first": second.afterMs > first.afterMs * 1.4,
        // With the one that ended the time.
        "requests that it gets on its return, still failing": again.requests + 1, "of which the client sees": failed(first.answers) + failed(again.answers), "once it answers well it has its share again": true,
      };
    },
  },
  {
    name: "ejection by gateway errors alone", spec: { endpoints: 3, balancing: "round robin", ejection: { errors: 0, gatewayErrors: 2, baseMs: LONG_MS, largestPercent: 100 } },
    find: async (world) => {
      world.fleet.set(0, { status: 500 });
      const internal = await untilLeftOut(world, 0);
      world.fleet.set(0, { status: 503 });
      const gateway = await untilLeftOut(world, 0);
      return { "by 500": internal.requests === Infinity ? "never" : "yes", "by 503, after so many": gateway.requests };
    },
  },
  {
    name: "a success between errors", spec: { endpoints: 3, balancing: "round robin", ejection: { errors: 2, baseMs: LONG_MS, largestPercent: 100 } },
    find: async (world) => {
      world.fleet.set(0, { everySecond: 500 });
      return { "errors that are not in a row eject": (await untilLeftOut(world, 0)).requests !== Infinity };
    },
  },
  {
    name: "ejection by success rate", spec: { endpoints: 6, balancing: "round robin", ejection: { errors: 0, successRate: { requests: 5, hosts: 5, stdevs: 1.5 }, baseMs: LONG_MS, largestPercent: 100 } },
    find: async (world) => {
      world.fleet.set(0, { everySecond: 500 });
      await until("it to be left out", PATIENCE_MS, async () => {
        const answers = await askMany(world, times(60));
        return countsOf(world, answers)[0] === 0;
      });
      return { "one that fails every second request is left out": true, "the others stay": used(await askMany(world, times(30))) };
    },
  },
  ...[[10, 5], [40, 5], [50, 4]].map(([percent, endpoints]): Scenario => ({
    name: `at most ${percent} % of ${endpoints} left out`, spec: { endpoints: endpoints!, balancing: "round robin", ejection: { errors: 2, baseMs: LONG_MS, largestPercent: percent! } },
    find: async (world) => {
      world.fleet.setAll({ status: 500 });
      await askMany(world, times(60));
      return { "of endpoints that all fail, so many are left out": endpoints! - used(await askMany(world, times(60))) };
    },
  })),
  {
    name: "all left out", spec: { endpoints: 3, balancing: "round robin", ejection: { errors: 2, baseMs: LONG_MS, largestPercent: 100 } },
    find: async (world) => {
      world.fleet.setAll({ status: 500 });
      await askMany(world, times(30));
      const answers = await askMany(world, times(10));
      return { "the answer is the proxy's own": answers.every(({ endpoint }) => endpoint === null), "its status": answers.at(-1)!.status };
    },
  },
  {
    name: "panic", spec: { endpoints: 5, balancing: "round robin", ejection: { errors: 2, baseMs: LONG_MS, largestPercent: 100, panicPercent: 50 } },
    find: async (world) => {
      for (const index of [0, 1]) world.fleet.set(index, { status: 500 });
      await askMany(world, times(40));
      const two = used(await askMany(world, times(50)));
      world.fleet.set(2, { status: 500 });
      await askMany(world, times(40));
      return { "with 2 of 5 left out, so many are used": two, "with 3 of 5 left out, below half, so many are used": used(await askMany(world, times(50))) };
    },
  },
];

export const SCENARIOS: readonly Scenario[] = [
  ...BALANCING,
  ...(["ring", "maglev"] as const).flatMap((table) => {
    const name = table === "ring" ? "ring hash" : "Maglev";
    return [hashing(`${name} by header`, table, { header: "x-key" }), hashing(`${name} by cookie`, table, { cookie: "k" }), hashing(`${name} by query parameter`, table, { query: "k" }), hashing(`${name} by source address`, table, { sourceIp: true }), hashingThroughFailure(`${name}, when an endpoint fails`, table)];
  }),
  COOKIE_MADE, ...HEALTH, ...EJECTION,
];
