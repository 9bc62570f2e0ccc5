package sinks

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"net/http/httptrace"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/go-retryablehttp"
)

// client sends requests. It repeats one at most once, and only where the first
// try surely had no effect, or a second does no harm.
type client struct {
	retry *retryablehttp.Client
	own   *http.Transport // nil where a test brought its own
}

func newClient(transport http.RoundTripper, concurrency int) *client {
	c := &client{}
	if transport == nil {
		t := http.DefaultTransport.(*http.Transport).Clone()
		t.MaxIdleConns = concurrency
		t.MaxIdleConnsPerHost = concurrency
		// Below the minute or so after which servers close: a request that meets
		// the closing is one of which nobody knows whether it had an effect.
		t.IdleConnTimeout = 30 * time.Second
		t.MaxResponseHeaderBytes = 256 << 10
		c.own, transport = t, t
	}
	c.retry = &retryablehttp.Client{
		HTTPClient:   plainClient(transport),
		Logger:       nil,
		RetryMax:     1,
		CheckRetry:   worthwhile,
		Backoff:      backoff,
		ErrorHandler: retryablehttp.PassthroughErrorHandler,
	}
	return c
}

// plainClient never follows a redirect: the rows would go to another host, and
// the credentials with them.
func plainClient(transport http.RoundTripper) *http.Client {
	return &http.Client{
		Transport:     transport,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
}

func (c *client) close() { c.retry.HTTPClient.CloseIdleConnections() }

// exchange is what a request went through, as far as retrying has to know it.
type exchange struct {
	repeatable bool
	spend      func() // called before it is sent again: that is one more for the limits
	repeated   bool
	doubtful   bool        // it was sent again after an answer that leaves open whether it had an effect
	wrote      atomic.Bool // something of it went out
}

type exchangeKey struct{}

// do sends a request. The caller closes the body.
func (c *client) do(ctx context.Context, method, target string, header http.Header, body []byte, ex *exchange) (*http.Response, error) {
	ctx = context.WithValue(ctx, exchangeKey{}, ex)
	ctx = httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{WroteHeaders: func() { ex.wrote.Store(true) }})
	var content any
	if body != nil {
		content = body
	}
	req, err := retryablehttp.NewRequestWithContext(ctx, method, target, content)
	if err != nil {
		return nil, err
	}
	req.Header = header
	return c.retry.Do(req)
}

// worthwhile is the CheckRetry of the client.
func worthwhile(ctx context.Context, resp *http.Response, err error) (bool, error) {
	ex, ok := ctx.Value(exchangeKey{}).(*exchange)
	if !ok || ctx.Err() != nil || ex.repeated || !ex.harmless(resp, err) {
		return false, nil
	}
	ex.repeated = true
	ex.doubtful = resp != nil && resp.StatusCode != http.StatusTooManyRequests
	ex.spend()
	return true, nil
}

// harmless reports whether the request surely had no effect, or may have it twice.
func (ex *exchange) harmless(resp *http.Response, err error) bool {
	if err != nil {
		return !ex.wrote.Load() && !isTimeout(err) && !isCertificate(err)
	}
	told, has := retryAfter(resp.Header, time.Now())
	switch resp.StatusCode {
	case http.StatusTooManyRequests:
		return has && told <= patience
	case http.StatusBadGateway, http.StatusServiceUnavailable:
		return ex.repeatable && told <= patience
	}
	return false
}

// backoff is never longer than patience: worthwhile has seen to that.
func backoff(_, _ time.Duration, _ int, resp *http.Response) time.Duration {
	if resp != nil {
		if told, has := retryAfter(resp.Header, time.Now()); has {
			return min(told, patience)
		}
	}
	return 100*time.Millisecond + rand.N(200*time.Millisecond)
}

func isTimeout(err error) bool {
	var t interface{ Timeout() bool }
	return errors.Is(err, context.DeadlineExceeded) || errors.As(err, &t) && t.Timeout()
}

func isCertificate(err error) bool {
	var verification *tls.CertificateVerificationError
	var authority x509.UnknownAuthorityError
	var host x509.HostnameError
	var invalid x509.CertificateInvalidError
	return errors.As(err, &verification) || errors.As(err, &authority) || errors.As(err, &host) || errors.As(err, &invalid)
}

// bodies are reused: nothing that is kept of an answer points into them.
var bodies = sync.Pool{New: func() any { return new(bytes.Buffer) }}

// keptText is how much of a body that is no JSON is kept for messages: more than
// they show, so that no secret is cut in two before it is hidden.
const keptText = 8 << 10

// drained is how much more than allowed is read of a body, so that the
// connection can be used again.
const drained = 64 << 10

// htmlPage is the fault of an answer that is a page, as proxies and firewalls give it.
const htmlPage = "is a page of HTML"

// readAnswer reads a response up to most bytes and closes it. The error is one
// of reading; the answer is there all the same.
func readAnswer(resp *http.Response, o *outline, most int64) (*answer, error) {
	defer resp.Body.Close()
	a := &answer{status: resp.StatusCode, header: resp.Header}
	buf := bodies.Get().(*bytes.Buffer)
	defer bodies.Put(buf)
	buf.Reset()
	_, err := buf.ReadFrom(io.LimitReader(resp.Body, most+1))
	data := buf.Bytes()
	trimmed := bytes.TrimSpace(data)
	switch {
	case err != nil:
		a.fault = "broke off"
	case int64(len(data)) > most:
		a.fault = "is longer than " + strconv.FormatInt(most, 10) + " bytes"
		_, _ = io.CopyN(io.Discard, resp.Body, drained)
	case len(trimmed) == 0:
		a.empty = true
	default:
		tree, bad := o.decode(data)
		if bad == nil {
			a.json, a.tree = true, tree
			return a, nil
		}
		a.fault = "is not JSON"
		if trimmed[0] == '<' {
			a.fault = htmlPage
		}
	}
	if a.fault == "is not JSON" {
		a.text = strings.ToValidUTF8(string(trimmed[:min(len(trimmed), keptText)]), "")
	}
	return a, err
}

// explain puts an error of sending into words without the address that it
// carries: paths and queries hold keys, and sometimes secrets.
func explain(err error, host string, timeout time.Duration, wrote bool) string {
	var at *url.Error
	for errors.As(err, &at) {
		err = at.Err
	}
	switch {
	case errors.Is(err, context.Canceled):
		return "stopped before " + host + " answered"
	case isTimeout(err):
		return "no answer from " + host + " within " + timeout.String()
	case isCertificate(err):
		return "the certificate of " + host + " is not accepted: " + err.Error()
	case wrote:
		return "the connection to " + host + " broke before the answer: " + network(err)
	}
	return "no connection to " + host + ": " + network(err)
}

func network(err error) string {
	var op *net.OpError
	if errors.As(err, &op) {
		err = op.Err
	}
	var dns *net.DNSError
	if errors.As(err, &dns) {
		return dns.Err
	}
	return err.Error()
}

func statusText(status int) string {
	if text := http.StatusText(status); text != "" {
		return strconv.Itoa(status) + " " + text
	}
	return strconv.Itoa(status)
}
