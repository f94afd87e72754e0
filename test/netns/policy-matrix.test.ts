// The policy matrix: each policy, for clients in the mesh and outside it, over IPv4 and IPv6, on the same node and across, at two
// ports. What is expected is written as one sentence per policy; what is denied has to be ended, not left waiting.

import { afterAll, beforeAll, expect, test } from "bun:test";
import { unsealed } from "../kit/box.ts";
import { Conversation } from "../kit/conversation.ts";
import { policyYaml } from "../kit/mesh.ts";
import { until } from "../kit/until.ts";
import type { Workload } from "../kit/network.ts";
import { promised } from "../kit/fair-time.ts";
import { addressOf, CHANGE_MS, ECHO_PORT, type Family, GREETER_PORT, GREETING, Shop } from "../kit/shop.ts";
import { describeUnless } from "../kit/skip.ts";
import { parseIp } from "../../src/core/ip.ts";

interface Cell {
  readonly client: "client" | "stranger";
  readonly server: "near" | "far";
  readonly family: Family;
  readonly port: typeof ECHO_PORT | typeof GREETER_PORT;
}

interface Case {
  readonly name: string;
  readonly yaml: (shop: Shop) => string;
  readonly allows: (cell: Cell) => boolean;
}

const captured = ({ client }: Cell): boolean => client === "client";
const CLIENT = "cluster.local/ns/shop/sa/client";
const SERVERS = { matchLabels: { role: "server" } };

const authorization = (spec: object) => () => policyYaml("AuthorizationPolicy", spec);
const authentication = (spec: object) => () => policyYaml("PeerAuthentication", spec);
const inRootNamespace = (yaml: string): string => yaml.replace('"namespace":"shop"', '"namespace":"istio-system"');

const CASES: readonly Case[] = [
  { name: "no policy: everybody", yaml: () => "", allows: () => true },
  { name: "PERMISSIVE: everybody", yaml: authentication({ mtls: { mode: "PERMISSIVE" } }), allows: () => true },
  { name: "STRICT: the mesh only", yaml: authentication({ mtls: { mode: "STRICT" } }), allows: captured },
  { name: "STRICT for the whole mesh", yaml: () => inRootNamespace(policyYaml("PeerAuthentication", { mtls: { mode: "STRICT" } })), allows: captured },
  {
    name: "STRICT, one port PERMISSIVE: others reach that port",
    yaml: authentication({ selector: SERVERS, mtls: { mode: "STRICT" }, portLevelMtls: { [GREETER_PORT]: { mode: "PERMISSIVE" } } }),
    allows: (cell) => captured(cell) || cell.port === GREETER_PORT,
  },
  {
    name: "PERMISSIVE, one port STRICT: others do not reach that port",
    yaml: authentication({ selector: SERVERS, mtls: { mode: "PERMISSIVE" }, portLevelMtls: { [GREETER_PORT]: { mode: "STRICT" } } }),
    allows: (cell) => captured(cell) || cell.port !== GREETER_PORT,
  },
  {
    name: "STRICT for one workload: the other is open",
    yaml: authentication({ selector: { matchLabels: { app: "far" } }, mtls: { mode: "STRICT" } }),
    allows: (cell) => captured(cell) || cell.server !== "far",
  },
  { name: "ALLOW nothing: nobody", yaml: authorization({ action: "ALLOW" }), allows: () => false },
  { name: "ALLOW by principal", yaml: authorization({ action: "ALLOW", rules: [{ from: [{ source: { principals: [CLIENT] } }] }] }), allows: captured },
  { name: "ALLOW by another principal", yaml: authorization({ action: "ALLOW", rules: [{ from: [{ source: { principals: [`${CLIENT}2`] } }] }] }), allows: () => false },
  { name: "ALLOW by namespace", yaml: authorization({ action: "ALLOW", rules: [{ from: [{ source: { namespaces: ["shop"] } }] }] }), allows: captured },
  { name: "ALLOW any identity", yaml: authorization({ action: "ALLOW", rules: [{ from: [{ source: { principals: ["*"] } }] }] }), allows: captured },
  {
    name: "ALLOW by the client's address, which is preserved",
    yaml: (shop) => policyYaml("AuthorizationPolicy", { action: "ALLOW", rules: [{ from: [{ source: { ipBlocks: [shop.stranger.ipv4, shop.stranger.ipv6!] } }] }] }),
    allows: ({ client }) => client === "stranger",
  },
  { name: "ALLOW by port", yaml: authorization({ action: "ALLOW", rules: [{ to: [{ operation: { ports: [`${GREETER_PORT}`] } }] }] }), allows: ({ port }) => port === GREETER_PORT },
  {
    name: "ALLOW by principal for one workload: the other is open",
    yaml: authorization({ selector: { matchLabels: { app: "near" } }, action: "ALLOW", rules: [{ from: [{ source: { principals: [CLIENT] } }] }] }),
    allows: (cell) => captured(cell) || cell.server !== "near",
  },
  { name: "DENY by principal", yaml: authorization({ action: "DENY", rules: [{ from: [{ source: { principals: [CLIENT] } }] }] }), allows: (cell) => !captured(cell) },
  { name: "DENY those without identity", yaml: authorization({ action: "DENY", rules: [{ from: [{ source: { notPrincipals: ["*"] } }] }] }), allows: captured },
  { name: "DENY by port", yaml: authorization({ action: "DENY", rules: [{ to: [{ operation: { ports: [`${ECHO_PORT}`] } }] }] }), allows: ({ port }) => port !== ECHO_PORT },
  { name: "DENY all but a port", yaml: authorization({ action: "DENY", rules: [{ to: [{ operation: { notPorts: [`${ECHO_PORT}`] } }] }] }), allows: ({ port }) => port === ECHO_PORT },
  {
    name: "DENY wins over ALLOW",
    yaml: () => [
      policyYaml("AuthorizationPolicy", { action: "ALLOW", rules: [{ from: [{ source: { principals: [CLIENT] } }] }] }, "allow"),
      policyYaml("AuthorizationPolicy", { action: "DENY", rules: [{ to: [{ operation: { ports: [`${ECHO_PORT}`] } }] }] }, "deny"),
    ].join("\n---\n"),
    allows: (cell) => captured(cell) && cell.port !== ECHO_PORT,
  },
  { name: "DENY for the whole mesh", yaml: () => inRootNamespace(policyYaml("AuthorizationPolicy", { action: "DENY", rules: [{}] })), allows: () => false },
  {
    name: "a DENY rule with an HTTP field denies all that its other fields match",
    yaml: authorization({ action: "DENY", rules: [{ from: [{ source: { principals: [CLIENT] } }], to: [{ operation: { methods: ["POST"] } }] }] }),
    allows: (cell) => !captured(cell),
  },
  {
    name: "an ALLOW rule with an HTTP field allows nothing",
    yaml: authorization({ action: "ALLOW", rules: [{ from: [{ source: { principals: [CLIENT] } }], to: [{ operation: { methods: ["GET"] } }] }] }),
    allows: () => false,
  },
];

const CELLS: readonly Cell[] = (["client", "stranger"] as const).flatMap((client) =>
  (["near", "far"] as const).flatMap((server) => ([4, 6] as const).flatMap((family) => ([ECHO_PORT, GREETER_PORT] as const).map((port) => ({ client, server, family, port })))));

const nameOf = ({ client, server, family, port }: Cell): string => `${client} to ${server} port ${port} over IPv${family}`;

describeUnless(unsealed)("policy matrix", () => {
  let shop: Shop;
  beforeAll(async () => void (shop = await Shop.open()), 60_000);
  afterAll(async () => await shop?.[Symbol.asyncDispose]());

  /** True when the conversation took place, false when it was ended; whatever else happens is thrown. */
  async function talks({ client, server, family, port }: Cell): Promise<boolean> {
    const [from, to]: [Workload, Workload] = [shop[client], shop[server]];
    try {
      using conversation = await Conversation.open(from, { ip: parseIp(addressOf(to, family))!, port });
      return port === GREETER_PORT ? await conversation.receive(`${GREETING}\n`) : await conversation.echoes("are you there");
    } catch (error) {
      const { message } = error as Error;
      if (/the connection ended|closed|reset|refused|ECONN|EPIPE/i.test(message)) return false;
      throw new Error(`${nameOf({ client, server, family, port })}: ${message}`, { cause: error });
    }
  }

  async function wrongCells(allows: Case["allows"]): Promise<string[]> {
    const answers = await Promise.all(CELLS.map(talks));
    return CELLS.flatMap((cell, i) => (answers[i] === allows(cell) ? [] : [`${nameOf(cell)} was ${answers[i] ? "allowed" : "denied"}`]));
  }

  for (const { name, yaml, allows } of CASES) {
    test(`${name} (${CELLS.length} cells)`, async () => {
      const text = yaml(shop);
      if (text !== "") shop.mesh.write("under-test.yaml", text);
      else shop.mesh.remove("under-test.yaml");
      let wrong: string[] = [];
      await promised(() => wrong.join("; "), CHANGE_MS, async () => (wrong = await wrongCells(allows)).length === 0);
      // Settled is settled: the next answer does not differ.
      expect(await wrongCells(allows)).toEqual([]);
    }, 60_000);
  }

  test("what is denied says so at the agent that denied it: decision, policy, blame", async () => {
    shop.mesh.write("under-test.yaml", policyYaml("AuthorizationPolicy", { action: "DENY", rules: [{ from: [{ source: { principals: [CLIENT] } }] }] }));
    for (const server of ["near", "far"] as const) {
      const agent = shop.mesh.agent(shop[server].node);
      const mark = agent.mark();
      const cell: Cell = { client: "client", server, family: 4, port: ECHO_PORT };
      // The policy before may have been the one that denied at first: asked until the answer is this one's.
      const line = await until("a denial that names the policy", 4_000, async () => {
        await talks(cell);
        return agent.connectionsSoFar({ close: "policy_denied", "src.workload": "client", "dst.workload": server, decision: "deny" }, mark).find(({ policy }) => policy?.includes("shop/under-test"));
      });
      expect(line["blame"]).toBe("operator");
      expect(line["src.identity"]).toBe(`spiffe://${CLIENT}`);
    }
    shop.mesh.remove("under-test.yaml");
  }, 60_000);

  test("where no ALLOW policy matches, the denial names those that could have", async () => {
    shop.mesh.write("under-test.yaml", policyYaml("AuthorizationPolicy", { action: "ALLOW", rules: [{ from: [{ source: { principals: ["cluster.local/ns/shop/sa/nobody"] } }] }] }));
    for (const server of ["near", "far"] as const) {
      const agent = shop.mesh.agent(shop[server].node);
      const mark = agent.mark();
      const cell: Cell = { client: "client", server, family: 4, port: ECHO_PORT };
      const line = await until("a denial that names the policy", 4_000, async () => {
        await talks(cell);
        return agent.connectionsSoFar({ close: "policy_denied", "dst.workload": server, decision: "deny", reason: "denied: none of these ALLOW policies matches: shop/under-test" }, mark)[0];
      });
      expect(line["policy"]).toBe("AuthorizationPolicy shop/under-test");
    }
    shop.mesh.remove("under-test.yaml");
  }, 60_000);
});
