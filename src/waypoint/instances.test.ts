import { expect, test } from "bun:test";
import { documents, entry, evaluate, namespace } from "../resources/test-kit.ts";
import { instanceProblems } from "./instances.ts";

const gateway = "apiVersion: gateway.networking.k8s.io/v1\nkind: Gateway\nmetadata: {name: waypoint, namespace: shop}\nspec: {gatewayClassName: weft-waypoint, addresses: [{type: IPAddress, value: 198.18.255.20}], listeners: [{name: mesh, port: 15008, protocol: HBONE}]}\n";
const instance = (labels: string): string => `apiVersion: networking.istio.io/v1\nkind: WorkloadEntry\nmetadata: {name: wp-1, namespace: shop, labels: {${labels}}}\nspec: {address: 198.18.1.20, serviceAccount: waypoint}\n`;
const problems = (...texts: readonly string[]): string[] => [...instanceProblems(evaluate(documents(namespace("shop"), entry("web-1"), ...texts))).values()];

test("a waypoint without an instance is told, with the labels that would make one", () => {
  expect(problems(gateway)).toEqual([expect.stringMatching(/^the Gateway shop\/waypoint has no instance, .*gateway-name: waypoint and networking.istio.io\/tunnel: http$/)]);
});

test("one whose instance does not end tunnels is told by the instance's name", () => {
  expect(problems(gateway, instance("gateway.networking.k8s.io/gateway-name: waypoint"))).toEqual([expect.stringMatching(/give shop\/wp-1 the label networking.istio.io\/tunnel: http$/)]);
});

test("nothing is said of one that can be served, nor where there is none", () => {
  expect(problems(gateway, instance("gateway.networking.k8s.io/gateway-name: waypoint, networking.istio.io/tunnel: http"))).toEqual([]);
  expect(problems()).toEqual([]);
});
