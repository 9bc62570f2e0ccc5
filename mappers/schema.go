package mappers

// Kind is the kind of a payload value, as a source's schema names it.
type Kind string

// The kinds. What Go type a value of each has after shaping stands behind it.
const (
	Any     Kind = "any"     // whatever the body holds: string, bool, int64, decimal.Decimal, map[string]any, []any
	ID      Kind = "id"      // string, also where the body has a number: all digits are kept
	Text    Kind = "text"    // string
	Integer Kind = "integer" // int64, or decimal.Decimal where it does not fit
	Number  Kind = "number"  // decimal.Decimal: exact
	Bool    Kind = "bool"    // bool; "true", "false", 0 and 1 count
	Time    Kind = "time"    // time.Time in UTC; see ParseTime
	Object  Kind = "object"  // map[string]any that reads as null all the way down where the body lacks it
	List    Kind = "list"    // []any
	Map     Kind = "map"     // map[string]any with free keys
)

// Schema describes one value of a payload.
type Schema struct {
	Kind        Kind
	Description string
	Required    bool
	Deprecated  bool
	Private     bool              // reading it in a mapping is an error unless `allow` names it
	Unit        string            // of a time: "ms" or "s"
	None        string            // the value that means "none", such as "0"
	Fields      map[string]Schema // of an object
	Spellings   map[string]string // of an object: other spelling in the body → field
	Elem        *Schema           // of a list; of an object or map: of every field that Fields does not name
}
