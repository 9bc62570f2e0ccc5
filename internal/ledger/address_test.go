package ledger_test

import (
	"encoding/json"
	"fmt"
	"net/url"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"partnersync/internal/ledger"
)

func TestParseAddress(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct{ give, want string }{
		{"jane@example.com", "jane@example.com"},
		{"  Jane.Doe+x@Example.COM\n", "jane.doe+x@example.com"},
		{"o'brien@example.com", "o'brien@example.com"},
		{"jörg@münchen.example", "jörg@münchen.example"},
		{"jo\u0308rg@example.com", "jörg@example.com"},
		{"jane", ""}, {"", ""}, {"@", ""}, {"@example.com", ""}, {"jane@", ""}, {"a@b@c", ""},
		{"Jane <jane@example.com>", ""}, {"jane@example.com, joe@example.com", ""}, {"*@example.com", ""}, {"jane doe@example.com", ""},
	} {
		got, err := ledger.ParseAddress(tt.give)
		if string(got) != tt.want || (err == nil) != (tt.want != "") {
			t.Errorf("%q: got %q, %v", tt.give, got, err)
		}
	}
}

func TestAddressInText(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name string
		give string
		want bool
	}{
		{"as a value", `{"email":"jane@example.com"}`, true},
		{"another case", `{"email":"Jane@EXAMPLE.com"}`, true},
		{"as a key", `{"jane@example.com":1}`, true},
		{"in a sentence", `{"note":"ask Jane (jane@example.com), please."}`, true},
		{"at the end of a sentence", `{"note":"ask jane@example.com."}`, true},
		{"after a line feed", `{"note":"ask:\njane@example.com\n"}`, true},
		{"as a link", `{"note":"mailto:jane@example.com?subject=x"}`, true},
		{"in markup", `{"note":"<a href='mailto:jane@example.com'>jane</a>"}`, true},
		{"in angle brackets", `{"from":"Jane <jane@example.com>"}`, true},
		{"an escaped at", `{"email":"jane\u0040example.com"}`, true},
		{"escaped letters", `{"email":"\u006a\u0041ne@example\u002ecom"}`, true},
		{"JSON in JSON", `{"raw":"{\"email\":\"jane\\u0040example.com\"}"}`, true},
		{"JSON in JSON in JSON", `{"a":"{\"b\":\"{\\\"c\\\":\\\"jane@example.com\\\"}\"}"}`, true},
		{"a query", `{"url":"https://example.com/?email=jane@example.com&x=1"}`, true},
		{"percent", `{"url":"https://example.com/?email=jane%40example.com&x=1"}`, true},
		{"percent in a query in a query", `{"url":"https://x.example/?to=https%3A%2F%2Fy.example%2F%3Fe%3Djane%2540example.com"}`, true},
		{"HTML", `{"html":"<p>jane&#64;example.com</p>"}`, true},
		{"a form", `email=jane%40example.com&name=Jane`, true},
		{"no JSON", `{"email":"jane@example.com`, true},
		{"bytes that are no UTF-8", "\xff\xfejane@example.com\xff", true},
		{"second of a list", `["joe@example.com","jane@example.com"]`, true},

		{"a longer mailbox", `{"email":"mary-jane@example.com"}`, false},
		{"a longer one with a dot", `{"email":"x.jane@example.com"}`, false},
		{"a tag", `{"email":"jane+tag@example.com"}`, false},
		{"a longer domain", `{"email":"jane@example.com.au"}`, false},
		{"a part of a domain", `{"email":"jane@my-example.com"}`, false},
		{"letters before", `{"email":"xjane@example.com"}`, false},
		{"no address", `{"email":"jane at example.com"}`, false},
		{"a line feed is no n", `{"note":"\nick@example.com"}`, false},
		{"nothing", ``, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			if got := ledger.Address("jane@example.com").In([]byte(tt.give)); got != tt.want {
				t.Errorf("%s: got %v", tt.give, got)
			}
		})
	}
	if ledger.Address("nick@example.com").In([]byte(`{"note":"\nick@example.com"}`)) {
		t.Error(`\n is taken for an n`)
	}
}

// Whatever characters JSON escapes, and however deep the address lies, it is found.
func TestAddressIsFoundBehindEveryEncoding(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		text := rapid.StringMatching(`[a-z0-9]([a-z0-9._+'-]{0,10}[a-z0-9])?@[a-z0-9]([a-z0-9-]{0,8}[a-z0-9])?\.[a-z]{2,5}`).Draw(t, "address")
		address, err := ledger.ParseAddress(text)
		if err != nil {
			t.Fatal(err)
		}
		before := rapid.SampledFrom([]string{"", " ", "<", "\n", "\t", "\"", "mailto:", "(", "é, ", "x=", "\U0001F600"}).Draw(t, "before")
		after := rapid.SampledFrom([]string{"", " ", ">", "\n", "\"", ",", ")", "?x", ". "}).Draw(t, "after")
		body := before + text + after
		for range rapid.IntRange(0, 3).Draw(t, "layers") {
			switch rapid.IntRange(0, 2).Draw(t, "encoding") {
			case 0:
				body = escapeSome(t, body)
			case 1:
				quoted, err := json.Marshal(map[string]string{"k": body})
				if err != nil {
					t.Fatal(err)
				}
				body = string(quoted)
			case 2:
				body = "q=" + url.QueryEscape(body)
			}
		}
		if !address.In([]byte(body)) {
			t.Fatalf("%q is not found in %q", text, body)
		}
	})
}

// escapeSome is a JSON string with some of its characters escaped.
func escapeSome(t *rapid.T, text string) string {
	var b strings.Builder
	b.WriteByte('"')
	for i, r := range text {
		switch {
		case r == '"' || r == '\\':
			b.WriteByte('\\')
			b.WriteRune(r)
		case r < ' ' || r < 0x10000 && rapid.Bool().Draw(t, fmt.Sprint("escape ", i)):
			fmt.Fprintf(&b, `\u%04X`, r)
		default:
			b.WriteRune(r)
		}
	}
	b.WriteByte('"')
	return b.String()
}

func FuzzAddress(f *testing.F) {
	f.Add([]byte(`{"email":"jane\u0040example.com"}`))
	f.Add([]byte(`%`))
	f.Add([]byte(`\u00`))
	f.Add([]byte(`&#64;@@`))
	f.Fuzz(func(t *testing.T, text []byte) {
		ledger.Address("jane@example.com").In(text)
		if whole := append([]byte("jane@example.com \""), text...); !ledger.Address("jane@example.com").In(whole) {
			t.Errorf("not found in %q", whole)
		}
	})
}
