package sources_test

import (
	"bytes"
	"compress/flate"
	"compress/gzip"
	"compress/zlib"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"
	"unicode/utf16"

	"github.com/google/go-cmp/cmp"

	"partnersync/receiver/sources"
)

func TestInflate(t *testing.T) {
	t.Parallel()
	const text = `{"a": 1}`
	deflate := func(s string, open func(io.Writer) io.WriteCloser) string {
		var b bytes.Buffer
		w := open(&b)
		_, _ = io.WriteString(w, s)
		_ = w.Close()
		return b.String()
	}
	zip := func(s string) string {
		return deflate(s, func(w io.Writer) io.WriteCloser { return gzip.NewWriter(w) })
	}
	zlibs := func(s string) string {
		return deflate(s, func(w io.Writer) io.WriteCloser { return zlib.NewWriter(w) })
	}
	raw := func(s string) string {
		return deflate(s, func(w io.Writer) io.WriteCloser { z, _ := flate.NewWriter(w, 9); return z })
	}
	for _, tt := range []struct {
		name, body string
		encoding   []string
		want       string
		err        error
	}{
		{"plain", text, nil, text, nil},
		{"identity", text, []string{"identity"}, text, nil},
		{"empty", "", []string{"gzip"}, "", nil},
		{"gzip", zip(text), []string{"gzip"}, text, nil},
		{"gzip in capitals", zip(text), []string{" GZip "}, text, nil},
		{"x-gzip", zip(text), []string{"x-gzip"}, text, nil},
		{"gzip that nobody names", zip(text), nil, text, nil},
		{"gzip that is called identity", zip(text), []string{"identity"}, text, nil},
		{"gzip that is called deflate", zip(text), []string{"deflate"}, "", sources.ErrBroken},
		{"gzip that was taken off", text, []string{"gzip"}, text, nil},
		{"gzip that was taken off, behind a mark", "\uFEFF\n" + text, []string{"gzip"}, "\uFEFF\n" + text, nil},
		{"a list", zip(zlibs(text)), []string{"deflate, gzip"}, text, nil},
		{"a list in two lines", zip(zlibs(text)), []string{"deflate", "gzip"}, text, nil},
		{"a list of which one was taken off", zlibs(text), []string{"deflate", "gzip"}, text, nil},
		{"a list with nothing in it", zip(text), []string{"identity,, gzip,"}, text, nil},
		{"twice", zip(zip(text)), []string{"gzip, gzip"}, text, nil},
		{"twice, and named once", zip(zip(text)), []string{"gzip"}, text, nil},
		{"too often", zip(zip(zip(zip(text)))), []string{"gzip, gzip, gzip, gzip"}, "", sources.ErrEncoding},
		{"deflate", zlibs(text), []string{"deflate"}, text, nil},
		{"deflate without its frame", raw(text), []string{"deflate"}, text, nil},
		{"deflate that was taken off", text, []string{"deflate"}, text, nil},
		{"another", "\x0b\x06", []string{"br"}, "", sources.ErrEncoding},
		{"another around gzip", zip(text), []string{"gzip, br"}, "", sources.ErrEncoding},
		{"another that was taken off", text, []string{"zstd"}, text, nil},
		{"cut short", zip(text)[:12], []string{"gzip"}, "", sources.ErrBroken},
		{"cut short, and nobody names it", zip(text)[:20], nil, "", sources.ErrBroken},
		{"the magic alone", "\x1f\x8b", nil, "", sources.ErrBroken},
		{"too large", zip(strings.Repeat("x", 5000)), []string{"gzip"}, "", io.ErrShortBuffer},
	} {
		got, err := sources.Inflate([]byte(tt.body), tt.encoding, func(r io.Reader) ([]byte, error) {
			all, err := io.ReadAll(io.LimitReader(r, 1001))
			if len(all) > 1000 {
				return nil, io.ErrShortBuffer
			}
			return all, err
		})
		if !errors.Is(err, tt.err) || err == nil && string(got) != tt.want {
			t.Errorf("%s: got %q, %v; want %q, %v", tt.name, got, err, tt.want, tt.err)
		}
		if err != nil && string(got) != tt.body && tt.name != "too large" {
			t.Errorf("%s: %q is kept", tt.name, got)
		}
	}
}

// wide is a text in UTF-16.
func wide(text, mark string, big bool) string {
	out := []byte(mark)
	for _, u := range utf16.Encode([]rune(text)) {
		if big {
			out = append(out, byte(u>>8), byte(u))
		} else {
			out = append(out, byte(u), byte(u>>8))
		}
	}
	return string(out)
}

func TestRead(t *testing.T) {
	t.Parallel()
	const (
		form   = "application/x-www-form-urlencoded"
		source = "{verify: none, events: {a: {schema: {id: id, n: text}, entity: {thing: event.id}}}}"
		text   = "{verify: none, wrapped: detail.message, events: {a: {entity: {thing: event.id}}}}"
	)
	tests := []struct {
		name   string
		source string // default above
		kind   string // Content-Type
		body   string
		want   string // "entity text" of each event, or what is wrong
	}{
		{name: "JSON", kind: "application/json", body: `{"id":1}`, want: `thing:1 {"id":1}`},
		{name: "a type that is none", kind: "json; ;; charset", body: `{"id":1}`, want: `thing:1 {"id":1}`},
		{name: "called text", kind: "text/plain", body: `{"id":1}`, want: `thing:1 {"id":1}`},
		{name: "UTF-8 with a mark", body: "\uFEFF" + `{"id":"é"}`, want: "thing:é \uFEFF" + `{"id":"é"}`},
		{name: "UTF-8 that is named", kind: `application/json; charset="UTF-8"`, body: `{"id":"é"}`, want: `thing:é {"id":"é"}`},
		{name: "not UTF-8", body: "{\"id\":\n\"J\xe9\"}", want: "line 2, column 3: this is not UTF-8, and no other charset is named"},
		{name: "not UTF-8, though that is named", kind: "application/json; charset=utf-8", body: "{\"id\":\"J\xe9\"}", want: "line 1, column 9: this is not UTF-8, and no other charset is named"},
		{name: "not UTF-8, in a name", body: "{\"id\xe9\":1}", want: "line 1, column 5: this is not UTF-8, and no other charset is named"},
		{name: "called ASCII", kind: "application/json; charset=us-ascii", body: `{"id":"é"}`, want: `thing:é {"id":"é"}`},
		{name: "half a character", body: `{"id":"\ud83d"}`, want: "line 1, column 8: this escape is half a character"},
		{name: "the other half", body: `{"id":"x\uDE00"}`, want: "line 1, column 9: this escape is half a character"},
		{name: "halves in the wrong order", body: `{"id":"\ude00\ud83d"}`, want: "line 1, column 8: this escape is half a character"},
		{name: "half a character after a sound one", body: `{"id":"\ud83d\ude00","n":"\ud83d"}`, want: "line 1, column 27: this escape is half a character"},
		{name: "both halves", body: `{"id":"\ud83d\uDE00"}`, want: "thing:\U0001F600 " + `{"id":"\ud83d\uDE00"}`},
		{name: "what only looks like an escape", body: `{"id":"\\ud83d"}`, want: `thing:\ud83d {"id":"\\ud83d"}`},
		{name: "a sender's own replacement", body: `{"id":"` + "\uFFFD" + `"}`, want: "thing:\uFFFD " + `{"id":"` + "\uFFFD" + `"}`},

		{name: "Latin-1", kind: "application/json; charset=iso-8859-1", body: "{\"id\":\"J\xe9r\xf4me\"}", want: `thing:Jérôme {"id":"Jérôme"}`},
		{name: "Windows-1252", kind: "application/json; charset=Windows-1252", body: "{\"id\":\"\x80\"}", want: `thing:€ {"id":"€"}`},
		{name: "Shift JIS", kind: "application/json; charset=shift_jis", body: "{\"id\":\"\x83e\"}", want: `thing:テ {"id":"テ"}`},
		{name: "broken Shift JIS", kind: "application/json; charset=shift_jis", body: "{\"id\":\"\x83\"}", want: "line 1, column 8: this is no character of its charset"},
		{name: "a charset that is not known", kind: "application/json; charset=klingon", body: `{"id":1}`, want: "line 1, column 1: its charset is not known"},
		{name: "UTF-16 with a mark", body: wide(`{"id":"é😀"}`, "\xff\xfe", false), want: "thing:é😀 \uFEFF" + `{"id":"é😀"}`},
		{name: "UTF-16 with a mark, big end first", body: wide(`{"id":"é"}`, "\xfe\xff", true), want: "thing:é \uFEFF" + `{"id":"é"}`},
		{name: "UTF-16 without a mark", body: wide(`{"id":"é"}`, "", false), want: `thing:é {"id":"é"}`},
		{name: "UTF-16 without a mark, big end first", body: wide(`{"id":"é"}`, "", true), want: `thing:é {"id":"é"}`},
		{name: "UTF-16 that is named", kind: "application/json; charset=utf-16", body: wide(`{"id":"é"}`, "", true), want: `thing:é {"id":"é"}`},
		{name: "UTF-16 that is cut", body: wide(`{"id":"é"}`, "", false)[:7], want: "line 1, column 4: the text ends in the middle of a character"},
		{name: "UTF-16 with half a pair", body: "{\x00\"\x00\x3d\xd8\"\x00", want: "line 1, column 3: this is no character of its charset"},

		{name: "a form", kind: form, body: "id=1&n=a+b%26", want: `thing:1 {"id":"1","n":"a b&"}`},
		{name: "a form with a charset", kind: form + "; charset=iso-8859-1", body: "id=%e9", want: `thing:é {"id":"é"}`},
		{name: "a form that is not UTF-8", kind: form, body: "n=1&id=%e9", want: "line 1, column 5: this is not UTF-8, and no other charset is named"},
		{name: "a form with a field twice", kind: form, body: "id=1&n=a&n=b&&", want: `thing:1 {"id":"1","n":["a","b"]}`},
		{name: "a form that is JSON", kind: form, body: ` {"id":"a&b=%ff"}`, want: `thing:a&b=%ff  {"id":"a&b=%ff"}`},
		{name: "a form with JSON", kind: form, body: "payload=%7B%22id%22:1%7D", want: `thing:1 {"id":1}`},
		{name: "a form with a list", kind: form, body: "payload=%5B%7B%22id%22:1%7D,%7B%22id%22:2%7D%5D", want: `thing:1 {"id":1}; thing:2 {"id":2}`},
		{name: "a form with JSON and more", kind: form, body: "payload=%7B%22id%22:1%7D&id=2", want: `thing:2 {"id":"2","payload":"{\"id\":1}"}`},
		{name: "a form with a text called payload", kind: form, body: "payload=x", want: ` {"payload":"x"}`},
		{name: "a form with JSON that is broken", kind: form, body: "payload=%7B%22id%22:", want: "line 1, column 7: the body ends in the middle of a value"},
		{name: "a form that is broken", kind: form, body: "id=1&n=%zz", want: "line 1, column 6: the field of the form is not escaped soundly"},
		{name: "a form with too much", kind: form, body: strings.Repeat("a&", 1001), want: "line 1, column 2001: the form has more than 1000 fields"},
		{name: "an empty form", kind: form, body: "", want: "empty"},

		{name: "JSON in a text", source: text, body: `{"detail":{"message":"{\"id\":\"\u00e9\"}"}}`, want: `thing:é {"detail":{"message":"{\"id\":\"\u00e9\"}"}}`},
		{name: "an object at the place", source: text, body: `{"x":1,"detail":{"message":{"id":2}}}`, want: `thing:2 {"x":1,"detail":{"message":{"id":2}}}`},
		{name: "a text that is no JSON at the place", source: text, body: `{"id":3,"detail":{"message":"hello"}}`, want: `thing:3 {"id":3,"detail":{"message":"hello"}}`},
		{name: "nothing at the place", source: text, body: `{"id":3,"detail":7}`, want: `thing:3 {"id":3,"detail":7}`},
		{name: "broken JSON in a text", source: text, body: `{"detail":{"message":"{\"id\":"}}`, want: "line 1, column 7: the body ends in the middle of a value"},
		{name: "half a character in a text", source: text, body: `{"detail":{"message":"{\"id\":\"\\ud83d\"}"}}`, want: "line 1, column 8: this escape is half a character"},
		{name: "JSON in a text that nobody names", body: `{"data":"{\"id\":1}"}`, want: ` {"data":"{\"id\":1}"}`},
		{name: "a form with JSON at the place", source: "{verify: none, wrapped: message, events: {a: {entity: {thing: event.id}}}}", kind: form, body: "v=1&message=%7B%22id%22:1%7D", want: `thing:1 {"message":"{\"id\":1}","v":"1"}`},

		{name: "a list", body: "\uFEFF [ {\"id\":1} ,\n{\"id\":2}] ", want: `thing:1 {"id":1}; thing:2 {"id":2}`},
		{name: "a list of one", body: `[{"id":1}]`, want: `thing:1 {"id":1}`},
		{name: "a list with empty ones", body: `[{},{"id":1},{ }]`, want: `thing:1 {"id":1}`},
		{name: "an empty list", body: `[]`, want: "empty"},
		{name: "a list of empty ones", body: `[{}]`, want: "empty"},
		{name: "a list of envelopes", body: `[{"event":"a","data":{"id":1}}]`, want: `thing:1 {"event":"a","data":{"id":1}}`},
		{name: "a list with something else", body: "[{\"id\":1},\n 7]", want: "line 2, column 2: an element of the list is not a JSON object"},
		{name: "a list in a list", body: `[[{"id":1}]]`, want: "line 1, column 2: an element of the list is not a JSON object"},
		{name: "a list that is cut", body: `[{"id":1},{"id"`, want: "line 1, column 16: the body ends in the middle of a value"},
		{name: "a list with a comma too many", body: `[{"id":1},]`, want: "line 1, column 10: invalid character ',' at start of value"},
		{name: "a list and more", body: `[{"id":1}] x`, want: "line 1, column 12: invalid character 'x' at start of value"},
		{name: "a list that is not UTF-8", body: "[{\"id\":1},{\"id\":\"\xff\"}]", want: "line 1, column 18: this is not UTF-8, and no other charset is named"},
		{name: "a list with something deep", body: `[{"id":1},{"id":` + strings.Repeat("[", 100) + strings.Repeat("]", 100) + `}]`, want: "line 1, column 116: nested more than 100 levels deep"},
		{name: "a long list", body: "[" + strings.Repeat(`{"id":1},`, 1000) + `{"id":1}]`, want: "the body holds more than 1000 events"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			yaml := tt.source
			if yaml == "" {
				yaml = source
			}
			s := load(t, "s", yaml)
			read, err := s.Read("a", []byte(tt.body), tt.kind)
			var got []string
			switch {
			case err != nil:
				got = []string{err.Error()}
			case read.Events[0].Malformed != nil:
				got = []string{read.Events[0].Malformed.Error()}
				if read.Events[0].Text != nil || len(read.Events) > 1 {
					t.Error("something of it is taken")
				}
			case read.Events[0].Empty:
				got = []string{"empty"}
			default:
				for _, e := range read.Events {
					got = append(got, e.Entity+" "+string(e.Text))
					// What is stored is read again later, without all this.
					if again := s.Open("a", e.Text); again.Entity != e.Entity {
						t.Errorf("read again it is %q", again.Entity)
					}
					if body, _, err := s.Shape("a", e.Text); err != nil || fmt.Sprint(body) != fmt.Sprint(e.Body) {
						t.Errorf("shaped again it is %v, %v", body, err)
					}
				}
			}
			if diff := cmp.Diff(tt.want, strings.Join(got, "; ")); diff != "" {
				t.Error(diff)
			}
			if want := strings.HasPrefix(strings.TrimSpace(strings.TrimPrefix(tt.body, "\uFEFF")), "[") || strings.Contains(tt.body, "%5B"); read.Several && !want {
				t.Error("it is taken for several")
			}
		})
	}
}

// FuzzRead: whatever comes in whatever clothes, what is taken can be read again, and no
// character of it was made up.
func FuzzRead(f *testing.F) {
	for _, kind := range []string{"", "application/x-www-form-urlencoded", "application/json; charset=iso-8859-1", "a/b; charset=shift_jis", "x; charset=gb18030"} {
		for _, body := range []string{`{"id":1}`, "[{\"id\":\"\xe9\"},{}]", "payload=%7B%22id%22:1%7D", wide(`{"id":"é"}`, "", false), `{"id":"\ud83d"}`, "\x1f\x8b"} {
			f.Add(kind, []byte(body))
		}
	}
	s := load(f, "s", "{verify: none, wrapped: message, events: {a: {schema: {id: id, n: text}, entity: {thing: event.id}}}}")
	f.Fuzz(func(t *testing.T, kind string, body []byte) {
		read, err := s.Read("a", body, kind)
		if err != nil {
			return
		}
		for _, e := range read.Events {
			if e.Malformed != nil || e.Empty {
				continue
			}
			again := s.Open("a", e.Text)
			if again.Malformed != nil || again.Entity != e.Entity {
				t.Fatalf("%q is read again as %q, %v", e.Text, again.Entity, again.Malformed)
			}
			if made := strings.Count(fmt.Sprint(e.Body), "\uFFFD"); made > 0 && !bytes.Contains(e.Text, []byte("\uFFFD")) && !bytes.Contains(bytes.ToLower(e.Text), []byte(`\ufffd`)) {
				t.Fatalf("%q holds a character that nobody sent", e.Text)
			}
		}
	})
}
