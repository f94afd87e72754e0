// The definitions of our own kinds in a real API server: what is sound is stored, and what is wrong is refused where it is written, with a
// message by which its writer can mend it.

import { afterAll, beforeAll, expect, test } from "bun:test";
import { ownDefinitions } from "../../src/cli/install/definitions.ts";
import { pluralOf } from "../../src/resources/plural.ts";
import { describeUnless } from "../kit/skip.ts";
import { type ApiServer, apply, type KubeObject, needsKubernetes, startApiServer } from "./api-server.ts";
import { SAMPLES, withSet } from "./admission-samples.ts";
import { until } from "../kit/until.ts";
import { namespace } from "./objects.ts";

const API_VERSION = "weft.dev/v1alpha1";

describeUnless(needsKubernetes)("admission of our own kinds", () => {
  let server: ApiServer;

  const collection = (kind: string): string => `/apis/${API_VERSION}/namespaces/shop/${pluralOf(kind)}`;
  /** What the API server says; "" when it takes the object. Nothing is stored. As kubectl asks: fields that nobody knows are errors. */
  const said = async (kind: string, spec: Readonly<Record<string, unknown>>): Promise<string> => {
    const answer = await server.client.request({ method: "POST", path: collection(kind), query: { dryRun: "All", fieldValidation: "Strict" }, body: { apiVersion: API_VERSION, kind, metadata: { name: "a", namespace: "shop" }, spec } });
    return answer.ok ? "" : answer.error.message;
  };

  beforeAll(async () => {
    server = await startApiServer();
    await apply(server.client, namespace("shop"));
    for (const definition of ownDefinitions()) await apply(server.client, JSON.parse(JSON.stringify(definition)) as KubeObject);
    for (const { kind } of SAMPLES) await until(`${kind} is served`, 60_000, async () => (await server.client.request({ method: "GET", path: collection(kind), query: { limit: "1" } })).ok);
  }, 180_000);

  afterAll(async () => {
    await server?.stop();
  });

  test("the definitions are structural, and the API server has nothing to complain of in them", async () => {
    for (const { metadata } of ownDefinitions()) {
      const answer = await server.client.request({ method: "GET", path: `/apis/apiextensions.k8s.io/v1/customresourcedefinitions/${metadata.name}` });
      const conditions = answer.ok ? (answer.value as { status: { conditions: { type: string; status: string; message: string }[] } }).status.conditions : [];
      expect([metadata.name, conditions.filter(({ type, status }) => ["NonStructuralSchema", "Terminating"].includes(type) === (status === "True")).map(({ type, message }) => `${type}: ${message}`)]).toEqual([metadata.name, []]);
    }
  });

  for (const { kind, sound, wrong } of SAMPLES) {
    test(`${kind}: what is sound is taken`, async () => {
      for (const spec of sound) expect(await said(kind, spec)).toBe("");
    }, 60_000);

    test(`${kind}: what is wrong is refused, in words`, async () => {
      const missed: string[] = [];
      for (const { set, says } of wrong) {
        const answer = await said(kind, withSet(sound[0]!, set));
        if (!answer.includes(says)) missed.push(`${JSON.stringify(set).slice(0, 200)}: wanted ${JSON.stringify(says)}, found ${JSON.stringify(answer.slice(0, 600))}`);
      }
      expect(missed).toEqual([]);
    }, 120_000);
  }

  test("a list of them says whether each is in force", async () => {
    const object: KubeObject = {
      apiVersion: API_VERSION, kind: "TrafficPolicy", metadata: { name: "listed", namespace: "shop" }, spec: SAMPLES[0]!.sound[0]!,
      status: { conditions: [{ type: "weft.dev/Accepted", status: "False", reason: "Invalid", message: "found nothing", observedGeneration: 1, lastTransitionTime: "2026-01-01T00:00:00Z" }] },
    };
    await apply(server.client, object);
    const answer = await server.client.request({ method: "GET", path: collection("TrafficPolicy"), accept: "application/json;as=Table;v=v1;g=meta.k8s.io" });
    if (!answer.ok) throw new Error(answer.error.message);
    const { columnDefinitions, rows } = answer.value as { columnDefinitions: { name: string }[]; rows: { cells: unknown[] }[] };
    expect(columnDefinitions.map(({ name }) => name)).toEqual(["Name", "Targets", "Accepted", "Age", "Message"]);
    expect(rows.map(({ cells }) => [cells[0], cells[2], cells[4]])).toEqual([["listed", "False", "found nothing"]]);
  }, 60_000);
});
