package sinks

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"net/http"
	"strconv"
	"strings"
	"time"

	"partnersync/internal/diag"
	"partnersync/internal/secret"
)

// signature signs requests as Standard Webhooks describes it, so that the
// receiver can tell that they come from us.
type signature struct {
	Secret secret.String `yaml:"secret,required"`

	key []byte
}

func (s *signature) check(n diag.Node, d *diag.Decoding) {
	text := s.Secret.Reveal()
	if text == "" {
		if n.Get("secret").Exists() {
			d.Errorf(n.Get("secret"), "set the variable that it comes from", "the signing secret is empty")
		}
		return
	}
	key, err := base64.StdEncoding.DecodeString(strings.TrimPrefix(text, "whsec_"))
	if err != nil || len(key) == 0 {
		d.Errorf(n.Get("secret"), "it is base64, with or without whsec_ before it", "the signing secret cannot be read")
		return
	}
	s.key = key
}

func (s *signature) sign(header http.Header, body []byte, id string, now time.Time) {
	stamp := strconv.FormatInt(now.Unix(), 10)
	mac := hmac.New(sha256.New, s.key)
	mac.Write([]byte(id + "." + stamp + "."))
	mac.Write(body)
	header.Set("webhook-id", id)
	header.Set("webhook-timestamp", stamp)
	header.Set("webhook-signature", "v1,"+base64.StdEncoding.EncodeToString(mac.Sum(nil)))
}
