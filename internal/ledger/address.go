package ledger

import (
	"bytes"
	"fmt"
	"html"
	"strings"
	"unicode"
	"unicode/utf8"

	"golang.org/x/text/unicode/norm"
)

// Address is an e-mail address in the form in which addresses are compared: lower
// case, composed characters. Two addresses of one mailbox that differ otherwise, as
// by a +tag, are two addresses.
type Address string

// ParseAddress reads an address as a person writes it.
func ParseAddress(text string) (Address, error) {
	text = strings.TrimSpace(text)
	var whole Address
	for _, a := range addressesIn([]byte(text)) {
		if len(a) == len(compared(text)) {
			whole = a
		}
	}
	if whole == "" {
		return "", fmt.Errorf("%q is not an e-mail address", text)
	}
	return whole, nil
}

func compared(text string) Address { return Address(strings.ToLower(norm.NFC.String(text))) }

// In reports whether a text holds the address, in whatever form JSON, URLs and HTML give it.
func (a Address) In(text []byte) bool {
	for _, b := range addressesIn(text) {
		if a == b {
			return true
		}
	}
	return false
}

// layers is how many encodings may lie over each other, such as JSON in a string of JSON.
const layers = 8

// addressesIn returns what may be an e-mail address in a text: plain, or in JSON
// with whatever escapes, percent-encoded, or as HTML. The text need not be well
// formed. What surrounds an address may be taken for a part of it, so that one
// place gives several candidates.
func addressesIn(text []byte) []Address {
	var found []Address
	for range layers {
		if bytes.IndexByte(text, '\\') >= 0 {
			text = unescaped(text)
		}
		found = appendAddresses(found, text)
		if bytes.IndexByte(text, '\\') >= 0 {
			continue
		}
		size := len(text)
		if bytes.IndexByte(text, '%') >= 0 {
			text = percentDecoded(text)
		}
		if bytes.IndexByte(text, '&') >= 0 {
			text = []byte(html.UnescapeString(string(text)))
		}
		if len(text) == size { // every encoding is longer than what it stands for
			break
		}
	}
	return found
}

// The longest parts of an address that are looked at; mail knows no longer ones.
const (
	maxLocal  = 128
	maxDomain = 256
)

func appendAddresses(found []Address, text []byte) []Address {
	for at := 0; at < len(text); at++ {
		n := bytes.IndexByte(text[at:], '@')
		if n < 0 {
			break
		}
		at += n
		start := at
		for start > 0 && at-start < maxLocal {
			r, size := utf8.DecodeLastRune(text[:start])
			if !inLocal(r, size) {
				break
			}
			start -= size
		}
		end := at + 1
		for end < len(text) && end-at < maxDomain {
			r, size := utf8.DecodeRune(text[end:])
			if !inDomain(r, size) {
				break
			}
			end += size
		}
		domain := strings.Trim(string(text[at+1:end]), ".-")
		if domain == "" {
			continue
		}
		local := string(text[start:at])
		for {
			if local = strings.TrimLeft(local, ".-'"); local == "" {
				break
			}
			found = append(found, compared(local+"@"+domain))
			// These may stand in a mailbox, but nearly always stand before one.
			cut := strings.IndexAny(local, "=/|&?{}`#!$^~%")
			if cut < 0 {
				break
			}
			local = local[cut+1:]
		}
	}
	return found
}

func inLocal(r rune, size int) bool {
	if r < utf8.RuneSelf {
		return r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || strings.ContainsRune("!#$%&'+/=?^_`{|}~.-", r)
	}
	return foreign(r, size)
}

func inDomain(r rune, size int) bool {
	if r < utf8.RuneSelf {
		return r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || r == '.' || r == '-'
	}
	return foreign(r, size)
}

// foreign is what is no ASCII and may be a part of a name.
func foreign(r rune, size int) bool {
	return (r != utf8.RuneError || size > 1) && (unicode.IsLetter(r) || unicode.IsMark(r) || unicode.IsNumber(r))
}

// unescaped takes one layer of JSON's escapes off, wherever they stand.
func unescaped(text []byte) []byte {
	out := make([]byte, 0, len(text))
	for i := 0; i < len(text); i++ {
		c := text[i]
		if c != '\\' || i+1 == len(text) {
			out = append(out, c)
			continue
		}
		i++
		switch c = text[i]; c {
		case 'b', 'f', 'n', 'r', 't':
			out = append(out, ' ')
		case 'u':
			if r, ok := hexDigits(text[i+1:], 4); ok {
				out = utf8.AppendRune(out, r) // half of a pair is no part of an address, nor is the whole
				i += 4
			}
		default:
			out = append(out, c)
		}
	}
	return out
}

// percentDecoded takes one layer of percent-encoding off, as of a form.
func percentDecoded(text []byte) []byte {
	out := make([]byte, 0, len(text))
	for i := 0; i < len(text); i++ {
		if r, ok := hexDigits(text[i+1:], 2); ok && text[i] == '%' {
			out = append(out, byte(r))
			i += 2
			continue
		}
		if c := text[i]; c != '+' {
			out = append(out, c)
		} else {
			out = append(out, ' ')
		}
	}
	return out
}

// hexDigits reads n hexadecimal digits.
func hexDigits(text []byte, n int) (rune, bool) {
	if len(text) < n {
		return 0, false
	}
	var r rune
	for _, c := range text[:n] {
		switch {
		case c >= '0' && c <= '9':
			r = r<<4 | rune(c-'0')
		case c >= 'a' && c <= 'f':
			r = r<<4 | rune(c-'a'+10)
		case c >= 'A' && c <= 'F':
			r = r<<4 | rune(c-'A'+10)
		default:
			return 0, false
		}
	}
	return r, true
}
