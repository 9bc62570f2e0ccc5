package sinks
import ("testing";"partnersync/internal/diag";"partnersync/mappers")
func TestZZ(t *testing.T){
 for _, s := range []string{
  `{(record.object): record.key}`,
  `not (record.key matches "[/<>*%&:?+\\\\]")`,
  `has(["leads"], record.object) ? "v1" : "v2"`,
  `has(setting.list, record.object)`,
  `record.object in ["a","b"]`,
  `filter(record.links, .id != null)`,
  `record.links[0].id`,
  `item.as ?? setting.map[record.object + ">" + item.object]`,
  `item.as endsWith "__r"`,
  `join(map(records, "'" + replace(.key, "'", "\\'") + "'"), ",")`,
  `setting.list`, `setting.empty ?? []`, `[]`, `false`, `2`, `value(false)`,
  `has(setting.list, item.as) ? {"type": item.object} : null`,
  `record.fields["x"]`,
  `setting.map["contacts"] ?? "no"`,
  `'/' + item.object + "(" + item.id + ")"`,
  `null`,
  `nil`,
 } {
  d := &diag.Decoding{}
  n, p := diag.Parse("", []byte("\""+esc(s)+"\""))
  if len(p)>0 {t.Log(p)}
  desc := &Description{settings: map[string]any{"list": []any{"leads"}, "map": map[string]any{"contacts":"c"}, "empty": []any{}}}
  l := compileLeaf(n, mappers.WantAny, operationScope(Upsert, desc.settingSchemas()), d)
  if l == nil { t.Log(s, " => ", d.Problems); continue }
  u := &unit{row: &Row{Object:"leads", Key:"a'b", Property:"k", Values: map[string]any{"x": int64(3)}, Links: []RowLink{{Object:"companies", ID:"7"}}}}
  r := &rendering{d: desc, units: []*unit{u}}
  v, err := l.expr.Eval(r.vars(l, u, map[string]any{"object":"companies","id":"7","as":"leads"}))
  t.Logf("%s => %#v %v", s, v, err)
 }
}
func esc(s string) string { out := ""; for _, c := range s { if c=='"'||c=='\\' { out += "\\" }; out += string(c) }; return out }
