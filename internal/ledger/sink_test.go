package ledger_test

import (
	"testing"

	"partnersync/internal/ledger"
	"partnersync/internal/pgtest"
)

func TestAccountIsTheFirst(t *testing.T) {
	t.Parallel()
	l := ledger.New(pgtest.Pool(t))
	for _, give := range []string{"62515", "62515", "99"} {
		if got, err := l.Account(t.Context(), "crm", give); err != nil || got != "62515" {
			t.Errorf("%s: got %q, %v", give, got, err)
		}
	}
}

func TestTokensAreKept(t *testing.T) {
	t.Parallel()
	l := ledger.New(pgtest.Pool(t))
	if got, err := l.Tokens(t.Context(), "crm"); err != nil || got != nil {
		t.Errorf("got %q, %v", got, err)
	}
	if err := l.SetTokens(t.Context(), "crm", []byte{1, 0, 2}); err != nil {
		t.Fatal(err)
	}
	if got, err := l.Tokens(t.Context(), "crm"); err != nil || string(got) != "\x01\x00\x02" {
		t.Errorf("got %q, %v", got, err)
	}
}
