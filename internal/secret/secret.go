package secret

import (
	"log/slog"
	"sort"
	"strings"
)

const hidden = "<secret>"

// String is a secret text. Every way of printing it gives "<secret>".
type String struct{ text string }

// New wraps text.
func New(text string) String { return String{text} }

// Reveal returns the text itself.
func (s String) Reveal() string { return s.text }

// Empty reports whether there is no text.
func (s String) Empty() bool { return s.text == "" }

func (s String) String() string               { return hidden }
func (s String) GoString() string             { return hidden }
func (s String) LogValue() slog.Value         { return slog.StringValue(hidden) }
func (s String) MarshalText() ([]byte, error) { return []byte(hidden), nil }

// Redactor replaces known secrets in texts that come from elsewhere, such as
// an error of the HTTP client or a CRM's message.
type Redactor struct{ replacer *strings.Replacer }

// NewRedactor returns a Redactor for the given secrets; those shorter than
// four bytes are left alone, since hiding them would mangle ordinary words.
func NewRedactor(secrets ...String) *Redactor {
	var texts []string
	for _, s := range secrets {
		if len(s.text) >= 4 {
			texts = append(texts, s.text)
		}
	}
	// Longest first, so that a secret which contains another is hidden whole.
	sort.Slice(texts, func(i, j int) bool { return len(texts[i]) > len(texts[j]) })
	var pairs []string
	for _, t := range texts {
		pairs = append(pairs, t, hidden)
	}
	return &Redactor{strings.NewReplacer(pairs...)}
}

// Redact returns text with every known secret hidden. A nil Redactor hides nothing.
func (r *Redactor) Redact(text string) string {
	if r == nil {
		return text
	}
	return r.replacer.Replace(text)
}
