package mappers

import (
	"fmt"
	"reflect"
	"time"

	"github.com/expr-lang/expr/checker/nature"
	"github.com/expr-lang/expr/types"
)

// hidden is the type that private fields have for the type checker: nothing
// takes it, and every use of one can be found afterwards.
type hidden struct{}

var hiddenType = reflect.TypeFor[hidden]()

// typeOf gives the type that the type checker knows a value by. Whole numbers
// are int there and numbers float64, whatever runs in the end.
func typeOf(s Schema, path string, allow map[string]bool) types.Type {
	if s.Private && !allow[path] {
		return types.TypeOf(hidden{})
	}
	switch s.Kind {
	case ID, Text:
		return types.String
	case Integer:
		return types.Int
	case Number:
		return types.Float64
	case Bool:
		return types.Bool
	case Time:
		return types.TypeOf(time.Time{})
	case List:
		return types.Array(elemOf(s, path, allow))
	case Map:
		return types.Map{types.Extra: elemOf(s, path, allow)}
	case Object:
		m := types.Map{}
		for name, field := range s.Fields {
			m[name] = typeOf(field, join(path, name), allow)
		}
		if len(s.Fields) == 0 {
			m[types.Extra] = types.Any
		}
		return m
	}
	return types.Any
}

func elemOf(s Schema, path string, allow map[string]bool) types.Type {
	if s.Elem == nil {
		return types.Any
	}
	return typeOf(*s.Elem, path, allow)
}

func join(path, name string) string {
	if path == "" {
		return name
	}
	return path + "." + name
}

// schemaOf is the way back: what the type checker found out about a value.
func schemaOf(n *nature.Nature) Schema {
	switch kindOf(n.Type) {
	case Text:
		return Schema{Kind: Text}
	case Integer:
		return Schema{Kind: Integer}
	case Number:
		return Schema{Kind: Number}
	case Bool:
		return Schema{Kind: Bool}
	case Time:
		return Schema{Kind: Time}
	case List:
		s := Schema{Kind: List}
		if n.Ref != nil {
			elem := schemaOf(n.Ref)
			s.Elem = &elem
		} else if n.Type.Elem().Kind() != reflect.Interface {
			s.Elem = &Schema{Kind: kindOf(n.Type.Elem())}
		}
		return s
	case Object:
		if n.TypeData == nil || !n.Strict {
			return Schema{Kind: Map}
		}
		s := Schema{Kind: Object, Fields: map[string]Schema{}}
		for name, field := range n.Fields {
			if field.Type == hiddenType {
				s.Fields[name] = Schema{Kind: Any, Private: true}
				continue
			}
			s.Fields[name] = schemaOf(&field)
		}
		return s
	}
	return Schema{Kind: Any}
}

func kindOf(t reflect.Type) Kind {
	if t == nil || t == hiddenType {
		return Any
	}
	switch t.Kind() {
	case reflect.String:
		return Text
	case reflect.Int, reflect.Int64:
		return Integer
	case reflect.Float64:
		return Number
	case reflect.Bool:
		return Bool
	case reflect.Slice:
		return List
	case reflect.Map:
		return Object
	case reflect.Struct:
		return Time
	}
	return Any
}

// words says what a kind is, in plain words.
func words(k Kind) string {
	switch k {
	case ID, Text:
		return "a text"
	case Integer:
		return "a whole number"
	case Number:
		return "a number"
	case Bool:
		return "true or false"
	case Time:
		return "a time"
	case List:
		return "a list"
	case Object, Map:
		return "an object"
	}
	return fmt.Sprintf("a value of kind %s", k)
}
