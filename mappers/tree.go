package mappers

import (
	"strconv"
	"strings"

	"github.com/expr-lang/expr/ast"
	"github.com/expr-lang/expr/file"
)

// chain returns the variable and the fields when n is nothing but a.b.c.
func chain(n ast.Node) []string {
	switch n := n.(type) {
	case *ast.IdentifierNode:
		return []string{n.Value}
	case *ast.ChainNode:
		return chain(n.Node)
	case *ast.MemberNode:
		base := chain(n.Node)
		if base == nil {
			return nil
		}
		switch p := n.Property.(type) {
		case *ast.StringNode:
			return append(base, p.Value)
		case *ast.ConstantNode:
			if name, ok := p.Value.(string); ok {
				return append(base, name)
			}
		}
	}
	return nil
}

// readsOf collects the constant paths below variables.
func readsOf(root ast.Node) []read {
	var out []read
	inner := map[ast.Node]bool{}
	var walk func(n ast.Node)
	walk = func(n ast.Node) {
		if !inner[n] {
			if path := chain(n); path != nil {
				out = append(out, read{path[0], path[1:]})
				for m := n; m != nil; {
					inner[m] = true
					switch v := m.(type) {
					case *ast.MemberNode:
						m = v.Node
					case *ast.ChainNode:
						m = v.Node
					default:
						m = nil
					}
				}
			}
		}
		for _, child := range children(n) {
			walk(child)
		}
	}
	walk(root)
	return out
}

// constantsOf gives the texts that may be the result, not those that something is compared with, and the tables that may give it.
func constantsOf(root ast.Node) (texts, tables []string) {
	for _, n := range resultsIn(root, nil) {
		switch n := n.(type) {
		case *ast.StringNode:
			texts = append(texts, n.Value)
		case *ast.IntegerNode:
			texts = append(texts, strconv.Itoa(n.Value))
		case *ast.CallNode:
			if name := calledName(n); name == "lookup" && len(n.Arguments) == 2 {
				if table, ok := n.Arguments[1].(*ast.StringNode); ok {
					tables = append(tables, table.Value)
				}
			}
		}
	}
	return texts, tables
}

// resultsIn collects the parts of which one is the result, or a part of it where that is a list.
func resultsIn(n ast.Node, out []ast.Node) []ast.Node {
	switch n := n.(type) {
	case *ast.ConditionalNode:
		return resultsIn(n.Exp2, resultsIn(n.Exp1, out))
	case *ast.BinaryNode:
		if n.Operator == "??" {
			return resultsIn(n.Right, resultsIn(n.Left, out))
		}
	case *ast.ArrayNode:
		for _, one := range n.Nodes {
			out = resultsIn(one, out)
		}
		return out
	case *ast.CallNode:
		if calledName(n) == "value" && len(n.Arguments) == 1 {
			return resultsIn(n.Arguments[0], out)
		}
	}
	return append(out, n)
}

func calledName(n *ast.CallNode) string {
	name, ok := n.Callee.(*ast.IdentifierNode)
	if !ok {
		return ""
	}
	return strings.TrimSuffix(name.Value, called)
}

// span is from where n begins to where it ends; the location of a field is that
// of its last name only.
func span(n ast.Node) file.Location {
	at := n.Location()
	visit(n, func(n ast.Node) {
		if l := n.Location(); l.To > l.From {
			at.From, at.To = min(at.From, l.From), max(at.To, l.To)
		}
	})
	return at
}

// visit calls f for n and everything below it.
func visit(n ast.Node, f func(ast.Node)) {
	f(n)
	for _, child := range children(n) {
		visit(child, f)
	}
}

func children(n ast.Node) []ast.Node {
	switch n := n.(type) {
	case *ast.UnaryNode:
		return []ast.Node{n.Node}
	case *ast.BinaryNode:
		return []ast.Node{n.Left, n.Right}
	case *ast.ChainNode:
		return []ast.Node{n.Node}
	case *ast.MemberNode:
		return []ast.Node{n.Node, n.Property}
	case *ast.SliceNode:
		out := []ast.Node{n.Node}
		if n.From != nil {
			out = append(out, n.From)
		}
		if n.To != nil {
			out = append(out, n.To)
		}
		return out
	case *ast.CallNode:
		return n.Arguments
	case *ast.BuiltinNode:
		return n.Arguments
	case *ast.PredicateNode:
		return []ast.Node{n.Node}
	case *ast.ConditionalNode:
		return []ast.Node{n.Cond, n.Exp1, n.Exp2}
	case *ast.ArrayNode:
		return n.Nodes
	case *ast.MapNode:
		return n.Pairs
	case *ast.PairNode:
		return []ast.Node{n.Key, n.Value}
	}
	return nil
}
