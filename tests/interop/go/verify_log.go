// A check of a log with Go's own golang.org/x/mod/sumdb/{note,tlog}: nothing of it was written for this project.
//
//	verify_log PUBLIC_FOLDER LOG_VKEY QUORUM WITNESS_VKEYS INDICES OLD_CHECKPOINTS...
//
// PUBLIC_FOLDER holds checkpoint and tile/. QUORUM of the comma-separated WITNESS_VKEYS must have cosigned. The entries at
// the comma-separated INDICES are read from their bundles and proved, and the log is shown to have grown from each of
// OLD_CHECKPOINTS. One line per fact; exit status 1 with the reason at the first that does not hold.
package main

import (
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"
)

const bundleEntries = 256

func main() {
	if len(os.Args) < 6 {
		fail(errors.New("usage: verify_log PUBLIC_FOLDER LOG_VKEY QUORUM WITNESS_VKEYS INDICES OLD_CHECKPOINTS..."))
	}
	folder := os.Args[1]
	key, err := note.NewVerifier(os.Args[2])
	must(err)
	quorum, err := strconv.Atoi(os.Args[3])
	must(err)
	verifiers := []note.Verifier{key}
	for _, vkey := range words(os.Args[4]) {
		one, err := newWitness(vkey)
		must(err)
		verifiers = append(verifiers, one)
	}
	head, cosigned := open(filepath.Join(folder, "checkpoint"), key, verifiers)
	fmt.Printf("checkpoint: %d entries, root %s\n", head.N, head.Hash)
	if len(cosigned) < quorum {
		fail(fmt.Errorf("cosigned by %d witnesses, not %d", len(cosigned), quorum))
	}
	fmt.Printf("cosigned: %s\n", strings.Join(cosigned, " "))

	reader := tlog.TileHashReader(head, &folderTiles{folder})
	root, err := tlog.TreeHash(head.N, reader)
	must(err)
	if root != head.Hash {
		fail(fmt.Errorf("tiles give root %s", root))
	}
	fmt.Println("tiles: give the root")
	for _, word := range words(os.Args[5]) {
		index, err := strconv.ParseInt(word, 10, 64)
		must(err)
		entry := readEntry(folder, index, head.N)
		proof, err := tlog.ProveRecord(head.N, index, reader)
		must(err)
		must(tlog.CheckRecord(proof, head.N, head.Hash, index, tlog.RecordHash(entry)))
		fmt.Printf("entry %d: included, %d hashes\n", index, len(proof))
	}
	for _, file := range os.Args[6:] {
		old, _ := open(file, key, verifiers)
		proof, err := tlog.ProveTree(head.N, old.N, reader)
		must(err)
		must(tlog.CheckTree(proof, head.N, head.Hash, old.N, old.Hash))
		fmt.Printf("grew from %d entries\n", old.N)
	}
}

// open reads a checkpoint that the log has signed, and the names of the witnesses that cosigned it.
func open(file string, key note.Verifier, verifiers []note.Verifier) (tlog.Tree, []string) {
	data, err := os.ReadFile(file)
	must(err)
	opened, err := note.Open(data, note.VerifierList(verifiers...))
	must(err)
	cosigned, signed := []string{}, false
	for _, signature := range opened.Sigs {
		if signature.Name == key.Name() && signature.Hash == key.KeyHash() {
			signed = true
		} else {
			cosigned = append(cosigned, signature.Name)
		}
	}
	lines := strings.Split(opened.Text, "\n")
	if !signed || len(lines) < 4 || lines[0] != key.Name() {
		fail(fmt.Errorf("%s is not a checkpoint signed by %s", file, key.Name()))
	}
	size, err := strconv.ParseInt(lines[1], 10, 64)
	must(err)
	root, err := tlog.ParseHash(lines[2])
	must(err)
	return tlog.Tree{N: size, Hash: root}, cosigned
}

// readEntry takes an entry from its bundle: a sequence of two-byte lengths, big-endian, and bytes.
func readEntry(folder string, index, size int64) []byte {
	number, at := index/bundleEntries, int(index%bundleEntries)
	width := size - number*bundleEntries
	path := strings.TrimPrefix(tlog.Tile{H: 8, L: 0, N: number, W: 256}.Path(), "tile/8/0/")
	if width < bundleEntries {
		path = fmt.Sprintf("%s.p/%d", path, width)
	}
	data, err := os.ReadFile(filepath.Join(folder, "tile", "entries", path))
	must(err)
	for {
		if len(data) < 2 || len(data) < 2+int(binary.BigEndian.Uint16(data)) {
			fail(fmt.Errorf("entry %d is not in its bundle", index))
		}
		stop := 2 + int(binary.BigEndian.Uint16(data))
		if at == 0 {
			return data[2:stop]
		}
		data, at = data[stop:], at-1
	}
}

// folderTiles reads tile/<L>/<N>, where Go's own servers have tile/8/<L>/<N>.
type folderTiles struct{ folder string }

func (t *folderTiles) Height() int                     { return 8 }
func (t *folderTiles) SaveTiles([]tlog.Tile, [][]byte) {}
func (t *folderTiles) ReadTiles(tiles []tlog.Tile) ([][]byte, error) {
	found := make([][]byte, len(tiles))
	for i, tile := range tiles {
		path := strings.Replace(tile.Path(), "tile/8/", "tile/", 1)
		data, err := os.ReadFile(filepath.Join(t.folder, path))
		if err != nil {
			return nil, err
		}
		found[i] = data
	}
	return found, nil
}

// witness verifies lines of C2SP tlog-cosignature v1 (type 4), which x/mod does not know.
type witness struct {
	name string
	hash uint32
	key  ed25519.PublicKey
}

func (w *witness) Name() string    { return w.name }
func (w *witness) KeyHash() uint32 { return w.hash }
func (w *witness) Verify(text, signature []byte) bool {
	if len(signature) != 8+ed25519.SignatureSize {
		return false
	}
	seconds := binary.BigEndian.Uint64(signature)
	message := append([]byte(fmt.Sprintf("cosignature/v1\ntime %d\n", seconds)), text...)
	return ed25519.Verify(w.key, message, signature[8:])
}

func newWitness(vkey string) (note.Verifier, error) {
	parts := strings.SplitN(vkey, "+", 3)
	if len(parts) != 3 {
		return nil, fmt.Errorf("%q is no vkey", vkey)
	}
	data, err := base64.StdEncoding.DecodeString(parts[2])
	if err != nil || len(data) != 33 || data[0] != 4 {
		return nil, fmt.Errorf("%q is no vkey of a witness", vkey)
	}
	sum := sha256.Sum256(append([]byte(parts[0]+"\n"), data...))
	hash := binary.BigEndian.Uint32(sum[:4])
	if fmt.Sprintf("%08x", hash) != parts[1] {
		return nil, fmt.Errorf("%q has another key id", vkey)
	}
	return &witness{parts[0], hash, ed25519.PublicKey(data[1:])}, nil
}

func words(list string) []string {
	return strings.FieldsFunc(list, func(r rune) bool { return r == ',' })
}

func must(err error) {
	if err != nil {
		fail(err)
	}
}

func fail(err error) {
	fmt.Fprintln(os.Stderr, err)
	os.Exit(1)
}
