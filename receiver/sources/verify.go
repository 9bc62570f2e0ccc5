package sources

import (
	"crypto/hmac"
	"crypto/sha1" // a sender may offer nothing better
	"crypto/sha256"
	"crypto/sha512"
	"crypto/subtle"
	"encoding/base64"
	"encoding/hex"
	"hash"
	"net/http"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/net/http/httpguts"

	"partnersync/internal/diag"
	"partnersync/internal/secret"
)

// verification is how requests prove where they come from. All that is given
// must hold.
type verification struct {
	tokens   []secret.String
	header   string // that carries a token; "": a query, a bearer or a password
	basics   []basic
	hmac     *signature
	standard *standardWebhooks
	ips      []netip.Prefix
}

type verifying struct {
	Node     diag.Node      `yaml:",node"`
	Token    []diag.Node    `yaml:"token,single"`
	Basic    []basic        `yaml:"basic,single"`
	HMAC     *signature     `yaml:"hmac"`
	Standard *standardHooks `yaml:"standard_webhooks"`
	AllowIPs []diag.Node    `yaml:"allow_ips,single"`
}

type basic struct {
	Username string        `yaml:"username,required"`
	Password secret.String `yaml:"password,required"`
}

type headerToken struct {
	Header  string      `yaml:"header,required"`
	Secrets []diag.Node `yaml:"secrets,required,single"`
}

type signature struct {
	Header          string        `yaml:"header,required"`
	Algorithm       string        `yaml:"algorithm"`
	Encoding        string        `yaml:"encoding"`
	Prefix          string        `yaml:"prefix"`
	Template        string        `yaml:"template"`
	TimestampHeader string        `yaml:"timestamp_header"`
	SignatureField  string        `yaml:"signature_field"` // where the header is a list such as t=1,v1=ab
	TimestampField  string        `yaml:"timestamp_field"`
	Tolerance       time.Duration `yaml:"tolerance"`
	Secrets         []diag.Node   `yaml:"secrets,required,single"`

	keys []secret.String
	hash func() hash.Hash
	name string // in the account of an event
}

type standardHooks struct {
	Secrets   []diag.Node   `yaml:"secrets,required,single"`
	Tolerance time.Duration `yaml:"tolerance"`
}

type standardWebhooks struct {
	texts     []secret.String
	keys      [][]byte
	tolerance time.Duration
}

const defaultTolerance = 5 * time.Minute

func loadVerification(source diag.Node, name string, n diag.Node, d *diag.Decoding) verification {
	var v verification
	if n.Kind() == diag.Scalar && n.Text() == "none" {
		return v
	}
	if !n.Exists() || n.Kind() == diag.Null {
		d.Errorf(source, "write `verify: {token: ...}`, or `verify: none` to take what anybody sends", "the source %q has no verify", name)
		return v
	}
	if n.Kind() == diag.Scalar {
		d.Errorf(n, "write `verify: {token: ...}`, or `verify: none` to take what anybody sends", "%q is no way to verify", n.Text())
		return v
	}
	before := len(d.Problems)
	var w verifying
	d.Decode(n, &w)
	if token := n.Get("token"); token.Kind() == diag.Map {
		var h headerToken
		d.Decode(token, &h)
		v.tokens = loadSecrets(h.Secrets, "token", d)
		if v.header = checkHeader(token.Get("header"), h.Header, d); token.Get("secrets").Kind() == diag.List && len(h.Secrets) == 0 {
			d.Errorf(token.Get("secrets"), "", "token needs a secret")
		}
	} else {
		v.tokens = loadSecrets(w.Token, "token", d)
	}
	v.basics = w.Basic
	for i, b := range w.Basic {
		if b.Password.Empty() && len(d.Problems) == before {
			at := n.Get("basic")
			if at.Kind() == diag.List {
				at = at.Items()[i]
			}
			d.Errorf(at.Get("password"), emptyHint, "the password is empty")
		}
	}
	if w.HMAC != nil {
		w.HMAC.load(n.Get("hmac"), d)
		v.hmac = w.HMAC
	}
	if w.Standard != nil {
		v.standard = w.Standard.load(n.Get("standard_webhooks"), d)
	}
	for _, ip := range w.AllowIPs {
		if text, ok := d.Scalar(ip); ok {
			prefix, err := ParseNetwork(text)
			if err != nil {
				d.Errorf(ip, "write an address or a network, such as 192.0.2.7 or 192.0.2.0/24", "%q is no network", ip.Text())
				continue
			}
			v.ips = append(v.ips, prefix)
		}
	}
	if v.empty() && len(d.Problems) == before {
		d.Errorf(n, "one of: token, basic, hmac, standard_webhooks, allow_ips", "verify names no way to verify")
	}
	return v
}

// checkHeader gives the canonical name of a header.
func checkHeader(n diag.Node, name string, d *diag.Decoding) string {
	if name != "" && !httpguts.ValidHeaderFieldName(name) {
		d.Errorf(n, "such as X-Webhook-Token", "%q cannot be the name of a header", name)
	}
	return http.CanonicalHeaderKey(name)
}

const emptyHint = "is the environment variable set?"

func loadSecrets(nodes []diag.Node, what string, d *diag.Decoding) []secret.String {
	var secrets []secret.String
	for _, n := range nodes {
		text, ok := d.Scalar(n)
		switch {
		case !ok:
		case text == "":
			d.Errorf(n, emptyHint, "the %s is empty", what)
		default:
			secrets = append(secrets, secret.New(text))
		}
	}
	return secrets
}

func (g *signature) load(n diag.Node, d *diag.Decoding) {
	g.keys = loadSecrets(g.Secrets, "secret", d)
	g.name = "hmac " + g.Header
	if n.Get("secrets").Kind() == diag.List && len(g.Secrets) == 0 {
		d.Errorf(n.Get("secrets"), "", "hmac needs a secret")
	}
	switch g.Algorithm {
	case "", "sha256":
		g.hash = sha256.New
	case "sha1":
		g.hash = sha1.New
	case "sha512":
		g.hash = sha512.New
	default:
		d.Errorf(n.Get("algorithm"), "one of: sha1, sha256, sha512", "unknown algorithm %q", g.Algorithm)
	}
	switch g.Encoding {
	case "":
		g.Encoding = "hex"
	case "hex", "base64":
	default:
		d.Errorf(n.Get("encoding"), "one of: hex, base64", "unknown encoding %q", g.Encoding)
	}
	if g.Template == "" {
		g.Template = "{body}"
	}
	timed := strings.Contains(g.Template, "{timestamp}")
	from := n.Get("timestamp_header")
	if g.TimestampField != "" {
		from = n.Get("timestamp_field")
	}
	switch {
	case g.TimestampField != "" && g.TimestampHeader != "":
		d.Errorf(from, "leave one out", "the timestamp can come from one place only")
	case g.TimestampField != "" && g.SignatureField == "":
		d.Errorf(from, "name the field of the signature with `signature_field`", "a header with fields has one for the signature, too")
	case !strings.Contains(g.Template, "{body}"):
		d.Errorf(n.Get("template"), "", "what is signed must hold {body}")
	case timed && !g.timed():
		d.Errorf(n.Get("template"), "name the header with `timestamp_header`", "{timestamp} needs a header to come from")
	case !timed && g.timed():
		d.Errorf(from, `write a template such as "{timestamp}.{body}"`, "the timestamp is not part of what is signed, so anybody could change it")
	case !timed && g.Tolerance != 0:
		d.Errorf(n.Get("tolerance"), "", "a tolerance needs a signed timestamp")
	}
	for _, name := range placeholders(g.Template) {
		if name != "body" && name != "timestamp" {
			d.Errorf(n.Get("template"), "one of: {body}, {timestamp}", "unknown placeholder {%s}", name)
		}
	}
	if timed && g.Tolerance == 0 {
		g.Tolerance = defaultTolerance
	}
}

// timed reports whether a request carries the time of its signature.
func (g *signature) timed() bool { return g.TimestampHeader != "" || g.TimestampField != "" }

func (w *standardHooks) load(n diag.Node, d *diag.Decoding) *standardWebhooks {
	s := &standardWebhooks{tolerance: w.Tolerance}
	if n.Get("secrets").Kind() == diag.List && len(w.Secrets) == 0 {
		d.Errorf(n.Get("secrets"), "", "standard_webhooks needs a secret")
	}
	if s.tolerance == 0 {
		s.tolerance = defaultTolerance
	}
	for _, n := range w.Secrets {
		for _, text := range loadSecrets([]diag.Node{n}, "secret", d) {
			key, err := base64.StdEncoding.DecodeString(strings.TrimPrefix(text.Reveal(), "whsec_"))
			if err != nil || len(key) == 0 {
				d.Errorf(n, `a secret of Standard Webhooks is "whsec_" and base64`, "the secret is not base64")
				continue
			}
			s.texts = append(s.texts, text)
			s.keys = append(s.keys, key)
		}
	}
	return s
}

func (v *verification) empty() bool {
	return len(v.tokens) == 0 && len(v.basics) == 0 && v.hmac == nil && v.standard == nil && len(v.ips) == 0
}

func (v *verification) secrets() []secret.String {
	all := append([]secret.String(nil), v.tokens...)
	for _, b := range v.basics {
		all = append(all, b.Password)
	}
	if v.hmac != nil {
		all = append(all, v.hmac.keys...)
	}
	if v.standard != nil {
		all = append(all, v.standard.texts...)
	}
	return all
}

// Proof is what the head of a request tells about who sent it.
type Proof int

// What a head may tell.
const (
	Refuted   Proof = iota // Authentic would refuse it with any body
	Undecided              // Authentic has to see the body
	Proved                 // Authentic takes it with any body
)

// Head tells what can be told before the body is there. A token, a password or an
// address holds or does not. A signature is worth the reading of a body where it is
// there, has its form, and its time is fresh. The work is the same whatever is wrong or
// missing.
func (s *Source) Head(r *http.Request, sender netip.Addr, now time.Time) Proof {
	v, holds := &s.verify, 1
	if len(v.tokens) > 0 {
		_, held := v.tokenHolds(r)
		holds &= held
	}
	if len(v.basics) > 0 {
		_, held := basicHolds(r, v.basics)
		holds &= held
	}
	if v.hmac != nil {
		_, _, worth := v.hmac.given(r, now)
		holds &= worth
	}
	if v.standard != nil {
		_, worth := v.standard.given(r, now)
		holds &= worth
	}
	if len(v.ips) > 0 {
		holds &= ipHolds(sender, v.ips)
	}
	switch {
	case holds != 1:
		return Refuted
	case v.empty() || v.hmac != nil || v.standard != nil:
		return Undecided
	}
	return Proved
}

// Authentic reports whether a request proves that it comes from the sender, and by
// what, such as "token in the query": never the secret, but which one of several.
// body is what was sent, remote the sender's address. The work is the same whatever is
// wrong or missing.
func (s *Source) Authentic(r *http.Request, body []byte, remote netip.Addr, now time.Time) (by string, ok bool) {
	v, holds := &s.verify, 1
	if v.empty() {
		return "nothing: verify is none", true
	}
	var parts [5]string
	n := 0
	add := func(part string, held int) {
		holds &= held
		parts[n] = part
		n++
	}
	if len(v.tokens) > 0 {
		add(v.tokenHolds(r))
	}
	if len(v.basics) > 0 {
		add(basicHolds(r, v.basics))
	}
	if v.hmac != nil {
		add(v.hmac.holds(r, body, now))
	}
	if v.standard != nil {
		add(v.standard.holds(r, body, now))
	}
	if len(v.ips) > 0 {
		add("allow_ips", ipHolds(remote, v.ips))
	}
	if holds != 1 {
		return "", false
	}
	return strings.Join(parts[:n], ", "), true
}

// which names the secret that held, if there are several. at is its position.
func which(what string, at, of int) string {
	if of == 1 {
		return what
	}
	return what + ", secret " + strconv.Itoa(at+1) + " of " + strconv.Itoa(of)
}

// Sign puts on a request what Authentic asks for, with the first secret of each
// scheme. body is what the request will send.
func (s *Source) Sign(r *http.Request, body []byte, now time.Time) {
	v := &s.verify
	if len(v.basics) > 0 {
		r.SetBasicAuth(v.basics[0].Username, v.basics[0].Password.Reveal())
	}
	if len(v.tokens) > 0 {
		if v.header != "" {
			r.Header.Set(v.header, v.tokens[0].Reveal())
		} else if len(v.basics) == 0 {
			r.Header.Set("Authorization", "Bearer "+v.tokens[0].Reveal())
		} else {
			q := r.URL.Query()
			q.Set("token", v.tokens[0].Reveal())
			r.URL.RawQuery = q.Encode()
		}
	}
	if g := v.hmac; g != nil && len(g.keys) > 0 {
		timestamp := strconv.FormatInt(now.Unix(), 10)
		if g.TimestampHeader != "" {
			r.Header.Set(g.TimestampHeader, timestamp)
		}
		sum := g.sum(g.keys[0], timestamp, body)
		text := hex.EncodeToString(sum)
		if g.Encoding == "base64" {
			text = base64.StdEncoding.EncodeToString(sum)
		}
		text = g.Prefix + text
		if g.SignatureField != "" {
			text = g.SignatureField + "=" + text
		}
		if g.TimestampField != "" {
			text = g.TimestampField + "=" + timestamp + "," + text
		}
		r.Header.Set(g.Header, text)
	}
	if w := v.standard; w != nil && len(w.keys) > 0 {
		timestamp := strconv.FormatInt(now.Unix(), 10)
		id := r.Header.Get("Webhook-Id")
		if id == "" {
			id = "msg_" + strconv.FormatInt(now.UnixNano(), 36)
			r.Header.Set("Webhook-Id", id)
		}
		r.Header.Set("Webhook-Timestamp", timestamp)
		r.Header.Set("Webhook-Signature", "v1,"+base64.StdEncoding.EncodeToString(w.sum(w.keys[0], id, timestamp, body)))
	}
}

func (v *verification) tokenHolds(r *http.Request) (by string, held int) {
	var f found
	if v.header != "" {
		given := r.Header.Get(v.header)
		for _, want := range v.tokens {
			f.note(same(given, want.Reveal()))
		}
		return which("token in "+v.header, f.at, len(v.tokens)), f.any
	}
	bearer, _ := cutPrefixFold(r.Header.Get("Authorization"), "Bearer ")
	_, password, _ := r.BasicAuth()
	for _, given := range [...]string{r.URL.Query().Get("token"), strings.TrimSpace(bearer), password} {
		for _, want := range v.tokens {
			f.note(same(given, want.Reveal()))
		}
	}
	ways := [...]string{"token in the query", "token as bearer", "token as basic password"}
	return which(ways[f.at/len(v.tokens)], f.at%len(v.tokens), len(v.tokens)), f.any
}

func basicHolds(r *http.Request, pairs []basic) (by string, held int) {
	username, password, _ := r.BasicAuth()
	var f found
	for _, want := range pairs {
		f.note(same(username, want.Username) & same(password, want.Password.Reveal()))
	}
	return which("basic", f.at, len(pairs)), f.any
}

// found remembers which of several secrets held, the last of them if more did, in a
// time that does not tell.
type found struct{ any, at, next int }

func (f *found) note(held int) {
	f.any |= held
	f.at = subtle.ConstantTimeSelect(held, f.next, f.at)
	f.next++
}

// given reads what a head carries of signatures, and whether one is worth comparing.
func (g *signature) given(r *http.Request, now time.Time) (timestamp string, sums [][]byte, worth int) {
	texts := []string{r.Header.Get(g.Header)}
	if g.SignatureField != "" {
		texts, timestamp = g.fields(texts[0])
	}
	if g.TimestampHeader != "" {
		timestamp = r.Header.Get(g.TimestampHeader)
	}
	for _, text := range texts {
		text, prefixed := strings.CutPrefix(text, g.Prefix)
		var sum []byte
		var err error
		if g.Encoding == "base64" {
			sum, err = base64.RawStdEncoding.Strict().DecodeString(strings.TrimRight(text, "="))
		} else {
			sum, err = hex.DecodeString(text)
		}
		if err == nil && prefixed && len(sum) == g.hash().Size() {
			sums = append(sums, sum)
		}
	}
	switch {
	case len(sums) == 0:
		return timestamp, nil, 0
	case g.timed():
		return timestamp, sums, within(timestamp, now, g.Tolerance)
	}
	return timestamp, sums, 1
}

// fields takes a header such as t=1614265330,v1=57…,v1=ab… apart: a sender whose secret is
// being rotated signs with both.
func (g *signature) fields(header string) (signatures []string, timestamp string) {
	for field := range strings.FieldsFuncSeq(header, func(r rune) bool { return r == ',' || r == ';' }) {
		name, value, _ := strings.Cut(strings.TrimSpace(field), "=")
		switch {
		case name == g.SignatureField && len(signatures) < maxSignatures:
			signatures = append(signatures, value)
		case name == g.TimestampField && name != "":
			timestamp = value
		}
	}
	return signatures, timestamp
}

func (g *signature) holds(r *http.Request, body []byte, now time.Time) (by string, held int) {
	timestamp, given, worth := g.given(r, now)
	var f found
	for _, key := range g.keys {
		held, want := 0, g.sum(key, timestamp, body)
		for _, sum := range given {
			held |= subtle.ConstantTimeCompare(sum, want)
		}
		f.note(held)
	}
	return which(g.name, f.at, len(g.keys)), f.any & worth
}

// sum is the signature of what the template makes of timestamp and body.
func (g *signature) sum(key secret.String, timestamp string, body []byte) []byte {
	mac := hmac.New(g.hash, []byte(key.Reveal()))
	for rest := g.Template; rest != ""; {
		switch {
		case strings.HasPrefix(rest, "{body}"):
			mac.Write(body)
			rest = rest[len("{body}"):]
		case strings.HasPrefix(rest, "{timestamp}"):
			mac.Write([]byte(timestamp))
			rest = rest[len("{timestamp}"):]
		default:
			mac.Write([]byte(rest[:1]))
			rest = rest[1:]
		}
	}
	return mac.Sum(nil)
}

// given reads the signatures of a head that have the right form, and whether one is
// worth comparing.
func (w *standardWebhooks) given(r *http.Request, now time.Time) (signatures []string, worth int) {
	signatures = strings.Fields(r.Header.Get("Webhook-Signature"))
	if len(signatures) > maxSignatures {
		signatures = signatures[:maxSignatures]
	}
	signatures = slices.DeleteFunc(signatures, func(s string) bool {
		return len(s) != len("v1,")+base64.StdEncoding.EncodedLen(sha256.Size) || !strings.HasPrefix(s, "v1,")
	})
	if len(signatures) == 0 || r.Header.Get("Webhook-Id") == "" {
		return nil, 0
	}
	return signatures, within(r.Header.Get("Webhook-Timestamp"), now, w.tolerance)
}

func (w *standardWebhooks) holds(r *http.Request, body []byte, now time.Time) (by string, held int) {
	given, worth := w.given(r, now)
	id, timestamp := r.Header.Get("Webhook-Id"), r.Header.Get("Webhook-Timestamp")
	var f found
	for _, key := range w.keys {
		held, want := 0, "v1,"+base64.StdEncoding.EncodeToString(w.sum(key, id, timestamp, body))
		for _, g := range given {
			held |= same(g, want)
		}
		f.note(held)
	}
	return which("standard_webhooks", f.at, len(w.keys)), f.any & worth
}

// maxSignatures bounds what one header may make us compare.
const maxSignatures = 10

func (w *standardWebhooks) sum(key []byte, id, timestamp string, body []byte) []byte {
	mac := hmac.New(sha256.New, key)
	mac.Write([]byte(id + "." + timestamp + "."))
	mac.Write(body)
	return mac.Sum(nil)
}

func ipHolds(remote netip.Addr, allowed []netip.Prefix) int {
	remote = remote.Unmap().WithZone("")
	for _, p := range allowed {
		if p.Contains(remote) {
			return 1
		}
	}
	return 0
}

// ParseNetwork reads an address, or a network such as 192.0.2.0/24.
func ParseNetwork(text string) (netip.Prefix, error) {
	if addr, err := netip.ParseAddr(text); err == nil {
		addr = addr.Unmap()
		return netip.PrefixFrom(addr, addr.BitLen()), nil
	}
	p, err := netip.ParsePrefix(text)
	return p.Masked(), err
}

// within reports whether a timestamp in seconds, milliseconds or RFC 3339 lies
// no further than tolerance from now.
func within(timestamp string, now time.Time, tolerance time.Duration) int {
	var at time.Time
	if n, err := strconv.ParseInt(timestamp, 10, 64); err == nil {
		if at = time.Unix(n, 0); n > 1e11 {
			at = time.UnixMilli(n)
		}
	} else if at, err = time.Parse(time.RFC3339, timestamp); err != nil {
		return 0
	}
	if at.Before(now.Add(-tolerance)) || at.After(now.Add(tolerance)) {
		return 0
	}
	return 1
}

// same compares in a time that depends on neither text: both are hashed first,
// so that not even the length of the secret shows.
func same(given, want string) int {
	a, b := sha256.Sum256([]byte(given)), sha256.Sum256([]byte(want))
	return subtle.ConstantTimeCompare(a[:], b[:])
}

func cutPrefixFold(text, prefix string) (string, bool) {
	if len(text) >= len(prefix) && strings.EqualFold(text[:len(prefix)], prefix) {
		return text[len(prefix):], true
	}
	return "", false
}

// placeholders lists the names in braces in a template.
func placeholders(template string) []string {
	var names []string
	for {
		_, rest, ok := strings.Cut(template, "{")
		if !ok {
			return names
		}
		name, after, closed := strings.Cut(rest, "}")
		if !closed {
			return names
		}
		names = append(names, name)
		template = after
	}
}
