// A dashboard as JSON, by Grafana's published types: the panel kinds that awry uses, each with its own options.
// Enums become the strings that JSON has for them; nothing that the types do not name is allowed.
import type * as schema from '@grafana/schema';
import type * as barchart from '@grafana/schema/dist/esm/raw/composable/barchart/panelcfg/x/BarChartPanelCfg_types.gen';
import type * as heatmap from '@grafana/schema/dist/esm/raw/composable/heatmap/panelcfg/x/HeatmapPanelCfg_types.gen';
import type * as stat from '@grafana/schema/dist/esm/raw/composable/stat/panelcfg/x/StatPanelCfg_types.gen';
import type * as table from '@grafana/schema/dist/esm/raw/composable/table/panelcfg/x/TablePanelCfg_types.gen';
import type * as timeseries from '@grafana/schema/dist/esm/raw/composable/timeseries/panelcfg/x/TimeSeriesPanelCfg_types.gen';
import type * as dashboard from '@grafana/schema/dist/esm/raw/dashboard/x/Dashboard_types.gen';

type Json<T> = T extends string ? `${T}`
  : T extends (infer E)[] ? Json<E>[]
  : T extends object ? { [K in keyof T]: Json<T[K]> }
  : T;

interface Query { refId: string; datasource: { type: string; uid: string }; editorMode: 'code' | 'builder' }
interface Sql extends Query { rawSql: string; rawQuery: true; format: 'table' | 'time_series' }
interface Prom extends Query { expr: string; legendFormat: string; instant: boolean; range: boolean }

type Fields<F> = {
  defaults: Omit<Json<dashboard.FieldConfig>, 'custom' | 'links'>
    & { unit: string; custom?: Partial<Json<F>>; links?: { title: string; url: string }[] };
  overrides: Json<dashboard.FieldConfigSource['overrides']>;
};

type Of<Kind extends string, O, F> = Omit<Json<dashboard.Panel>, 'type' | 'options' | 'fieldConfig' | 'targets'> & {
  id: number; type: Kind; title: string; description: string; options: Json<O>; fieldConfig: Fields<F>;
  targets: (Sql | Prom)[];
};

type Panel =
  | Of<'barchart', barchart.Options, barchart.FieldConfig>
  | Of<'heatmap', heatmap.Options, heatmap.FieldConfig>
  | Of<'stat', stat.Options, Record<string, never>>
  | Of<'table', table.Options, table.FieldConfig>
  | Of<'timeseries', timeseries.Options, timeseries.FieldConfig>;

export type Board = Omit<Json<dashboard.Dashboard>, 'panels' | 'templating' | 'annotations'> & {
  uid: string; title: string; description: string; panels: Panel[];
  templating: { list: Json<schema.VariableModel>[] };
  annotations: {
    list: (Omit<Json<dashboard.AnnotationQuery>, 'target'> & { target: Omit<Sql, 'datasource'> })[];
  };
};
