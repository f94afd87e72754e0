// What Telemetry resources change about the metrics of one service's requests: families left out, labels taken away or set to a fixed
// text. Compiled once; plain data, so that it crosses to the thread which renders.

import type { MetricsOverride } from "../mesh/l7/telemetry.ts";
import { REQUEST_LABEL_NAMES, type RequestFamilyName } from "./request-families.ts";

export interface FamilyShape {
  readonly disabled: boolean;
  readonly removed: readonly string[];
  readonly set: readonly (readonly [name: string, text: string])[];
}

export interface MetricsShape {
  /** Equal for equal shapes, whichever thread made them. */
  readonly id: string;
  /** Nothing at all is counted. */
  readonly nothing: boolean;
  readonly families: Readonly<Record<RequestFamilyName, FamilyShape>>;
  /** Labels that no family shows, or all show with the same text: they do not tell series apart. Text or null by label name. */
  readonly common: Readonly<Record<string, string | null>>;
}

/** Prometheus takes no other label names. */
const LABEL_NAME = /^[a-zA-Z_][a-zA-Z0-9_]*$/;

/** Null when nothing is changed. */
export function compileMetricsShape(overrides: readonly MetricsOverride[]): MetricsShape | null {
  if (overrides.length === 0) return null;
  const families: MetricsShape["families"] = {
    istio_requests_total: familyShape("istio_requests_total", overrides),
    istio_request_duration_milliseconds: familyShape("istio_request_duration_milliseconds", overrides),
    istio_request_bytes: familyShape("istio_request_bytes", overrides),
    istio_response_bytes: familyShape("istio_response_bytes", overrides),
    istio_request_messages_total: familyShape("istio_request_messages_total", overrides),
    istio_response_messages_total: familyShape("istio_response_messages_total", overrides),
  };
  const shapes = Object.values(families);
  if (shapes.every(({ disabled, removed, set }) => !disabled && removed.length === 0 && set.length === 0)) return null;
  return { id: JSON.stringify(families), nothing: shapes.every(({ disabled }) => disabled), families, common: commonLabels(shapes) };
}

/** One override after the other; later ones win. */
function familyShape(name: RequestFamilyName, overrides: readonly MetricsOverride[]): FamilyShape {
  let disabled = false;
  const labels = new Map<string, string | null>();
  for (const override of overrides) {
    if (override.metric !== null && override.metric !== name) continue;
    disabled = override.disabled;
    for (const label of override.removeTags) labels.set(label, null);
    for (const [label, text] of override.setTags) if (LABEL_NAME.test(label)) labels.set(label, text);
  }
  const entries = [...labels].sort(([a], [b]) => (a < b ? -1 : 1));
  return {
    disabled, removed: entries.filter(([, text]) => text === null).map(([label]) => label),
    set: entries.filter((entry): entry is [string, string] => entry[1] !== null),
  };
}

function commonLabels(shapes: readonly FamilyShape[]): Record<string, string | null> {
  const shown = shapes.filter(({ disabled }) => !disabled);
  const common: Record<string, string | null> = {};
  for (const label of REQUEST_LABEL_NAMES) {
    const values = new Set(shown.map(({ removed, set }) => (removed.includes(label) ? null : set.find(([name]) => name === label)?.[1])));
    const [only] = values;
    if (values.size === 1 && only !== undefined) common[label] = only;
  }
  return common;
}
