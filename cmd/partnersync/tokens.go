package main

import (
	"context"
	"crypto/aes"
	"crypto/cipher"
	"crypto/sha256"
	"errors"

	"partnersync/internal/ledger"
	"partnersync/internal/secret"
)

// tokenStore keeps the tokens of one sink in the database, sealed with the key
// of the config, so that a restart need not ask for new ones: some CRMs lock out
// who asks often.
type tokenStore struct {
	ledger *ledger.Ledger
	sink   string
	names  []string // the sink's, then those that it had before: tokens are sealed for one
	seal   cipher.AEAD
}

// newTokenStore returns nil where the config has no key.
func newTokenStore(l *ledger.Ledger, sink string, formerly []string, key secret.String) (*tokenStore, error) {
	if key.Empty() {
		return nil, nil
	}
	sum := sha256.Sum256([]byte("partnersync tokens\x00" + key.Reveal()))
	block, err := aes.NewCipher(sum[:])
	if err != nil {
		return nil, err
	}
	seal, err := cipher.NewGCMWithRandomNonce(block)
	if err != nil {
		return nil, err
	}
	return &tokenStore{ledger: l, sink: sink, names: append([]string{sink}, formerly...), seal: seal}, nil
}

// Load returns what Save stored; nothing where it was sealed with another key.
func (t *tokenStore) Load(ctx context.Context) ([]byte, error) {
	sealed, err := t.ledger.Tokens(ctx, t.sink)
	if err != nil || sealed == nil {
		return nil, err
	}
	for _, name := range t.names {
		if plain, err := t.seal.Open(nil, nil, sealed, []byte(name)); err == nil {
			return plain, nil
		}
	}
	return nil, errors.New("the stored tokens were sealed with another key: new ones are fetched")
}

// Save seals and stores tokens.
func (t *tokenStore) Save(ctx context.Context, plain []byte) error {
	return t.ledger.SetTokens(ctx, t.sink, t.seal.Seal(nil, nil, plain, []byte(t.sink)))
}
