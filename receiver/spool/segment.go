package spool

import (
	"crypto/rand"
	"encoding/binary"
	"hash/crc32"
	"time"
)

// A segment begins with its salt, twice, each with a checksum. Frames follow:
//
//	length   uint32  of the data
//	at       int64   when it was received, Unix time in nanoseconds
//	data     uint32  checksum of the data
//	header   uint32  checksum of the 16 bytes before
//	data
//
// All numbers are little-endian. The salt goes into every checksum, so that nobody
// who sends data can make it look like a frame: behind damage the next frame is
// looked for at every byte.
const (
	saltSize    = 8
	saltedSize  = saltSize + 4
	prefaceSize = 2 * saltedSize
	headerSize  = 20
	// format goes into the checksum of the salt. Another format is another text.
	format = "partnersync spool 1"
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// key makes the checksums of one segment: the checksum so far, over its salt.
type key uint32

func newKey(salt []byte) key { return key(crc32.Checksum(salt, castagnoli)) }

func (k key) sum(data []byte) uint32 { return crc32.Update(uint32(k), castagnoli, data) }

func saltSum(salt []byte) uint32 {
	return crc32.Update(crc32.Checksum([]byte(format), castagnoli), castagnoli, salt)
}

// newPreface makes the beginning of a segment.
func newPreface() ([]byte, key) {
	preface := make([]byte, saltSize, prefaceSize)
	_, _ = rand.Read(preface) // never fails
	preface = binary.LittleEndian.AppendUint32(preface, saltSum(preface))
	k := newKey(preface[:saltSize])
	return append(preface, preface...), k
}

// readPreface finds the key; one of the two salts is enough.
func readPreface(data []byte) (key, bool) {
	for at := 0; at+saltedSize <= min(len(data), prefaceSize); at += saltedSize {
		salt := data[at : at+saltSize]
		if binary.LittleEndian.Uint32(data[at+saltSize:]) == saltSum(salt) {
			return newKey(salt), true
		}
	}
	return 0, false
}

// appendHeader writes what stands before the data of a record.
func (k key) appendHeader(b []byte, r Record) []byte {
	start := len(b)
	b = binary.LittleEndian.AppendUint32(b, uint32(len(r.Data)))
	b = binary.LittleEndian.AppendUint64(b, uint64(r.At.UnixNano()))
	b = binary.LittleEndian.AppendUint32(b, k.sum(r.Data))
	return binary.LittleEndian.AppendUint32(b, k.sum(b[start:]))
}

// length reads the length out of a header whose checksum is right.
func (k key) length(data []byte) (int64, bool) {
	if len(data) < headerSize || binary.LittleEndian.Uint32(data[headerSize-4:]) != k.sum(data[:headerSize-4]) {
		return 0, false
	}
	return int64(binary.LittleEndian.Uint32(data)), true
}

// record reads the frame at the beginning of data; the record shares its memory.
func (k key) record(data []byte) (Record, bool) {
	length, ok := k.length(data)
	if !ok || length > int64(len(data)-headerSize) {
		return Record{}, false
	}
	r := Record{
		At:   time.Unix(0, int64(binary.LittleEndian.Uint64(data[4:]))),
		Data: data[headerSize : headerSize+length : headerSize+length],
	}
	return r, binary.LittleEndian.Uint32(data[12:]) == k.sum(r.Data)
}

// find returns the first whole frame and how many bytes stand before it, which are
// damaged. Without one these are all bytes.
func (k key) find(data []byte) (r Record, skipped int, ok bool) {
	for at := 0; at+headerSize <= len(data); at++ {
		if r, ok := k.record(data[at:]); ok {
			return r, at, true
		}
	}
	return Record{}, len(data), false
}

// torn reports whether data, in which there is no whole frame, is what a write
// leaves that was cut off: the beginning of a frame, or room that was not filled.
func (k key) torn(data []byte) bool {
	if length, ok := k.length(data); ok {
		return length > int64(len(data)-headerSize)
	}
	if len(data) < headerSize {
		return true
	}
	for _, b := range data {
		if b != 0 {
			return false
		}
	}
	return true
}
