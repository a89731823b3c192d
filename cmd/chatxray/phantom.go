package main

import (
	"bytes"
	"fmt"
	"os"
	"sort"
	"strings"

	"chatxray/phantom"
	"chatxray/pipeline"
	"chatxray/pipeline/dicom"
)

type phantomCmd struct {
	Out          string         `required:"" short:"o" help:"File to write; - is standard output." placeholder:"FILE"`
	Seed         uint64         `default:"1" help:"Varies everything that is not asked for; the same options draw the same object."`
	Rows         int            `default:"2500" help:"Rows."`
	Columns      int            `default:"2048" help:"Columns."`
	Bits         int            `default:"12" help:"Bits stored, 8 to 16."`
	Photometric  string         `default:"MONOCHROME2" enum:"MONOCHROME1,MONOCHROME2" help:"${enum}."`
	View         phantom.View   `default:"PA" enum:"PA,AP,LL" help:"${enum} (LL is a left lateral view)."`
	Syntax       string         `default:"explicit" help:"Transfer syntax: ${syntaxes}; or a UID."`
	Effusion     phantom.Side   `enum:",right,left" default:"" help:"Plant a pleural effusion on this side (right, left)."`
	Opacity      phantom.Side   `enum:",right,left" default:"" help:"Plant a lung opacity on this side."`
	Pneumothorax phantom.Side   `enum:",right,left" default:"" help:"Plant a pneumothorax on this side."`
	BigHeart     bool           `help:"Plant an enlarged heart."`
	Device       phantom.Device `enum:",central-line,pacemaker,chest-tube,tracheal-tube" default:"" help:"Plant a device: central-line, pacemaker, chest-tube, tracheal-tube."`
	DeviceSide   phantom.Side   `enum:",right,left" default:"" help:"Side of the device."`
	PrintUID     bool           `help:"Print the Study Instance UID on standard output."`
}

// Help is shown by chatxray phantom --help.
func (phantomCmd) Help() string {
	return `The object says in its header and in the picture that it is a phantom, and every report about it repeats that. It is for
demonstrations and tests; it says nothing about how well a model reads.`
}

// phantomSyntaxes are the short names of transfer syntaxes.
var phantomSyntaxes = map[string]string{
	"implicit": "1.2.840.10008.1.2", "explicit": "1.2.840.10008.1.2.1", "big-endian": "1.2.840.10008.1.2.2", "deflated": "1.2.840.10008.1.2.1.99",
	"rle": "1.2.840.10008.1.2.5", "jpeg": "1.2.840.10008.1.2.4.50", "jpeg-lossless": "1.2.840.10008.1.2.4.70",
	"jpeg-ls": "1.2.840.10008.1.2.4.80", "jpeg2000": "1.2.840.10008.1.2.4.90", "htj2k": "1.2.840.10008.1.2.4.201",
}

func phantomSyntaxNames() string {
	var names []string
	for n := range phantomSyntaxes {
		names = append(names, n)
	}
	sort.Strings(names)
	return strings.Join(names, ", ")
}

// Run draws a phantom.
func (c phantomCmd) Run(s streams) error {
	p, err := phantom.Draw(phantom.Options{Seed: c.Seed, Rows: c.Rows, Columns: c.Columns, BitsStored: c.Bits, Photometric: c.Photometric, View: c.View,
		Effusion: c.Effusion, Opacity: c.Opacity, Pneumothorax: c.Pneumothorax, EnlargedHeart: c.BigHeart, Device: c.Device, DeviceSide: c.DeviceSide})
	if err != nil {
		return err
	}
	syntax, ok := phantomSyntaxes[c.Syntax]
	if !ok {
		syntax = c.Syntax
	}
	setUpCodecs(s.log)
	ds := p.Dataset()
	var b bytes.Buffer
	if err := dicom.Write(&b, ds, syntax); err != nil {
		return err
	}
	if c.Out == "-" {
		if c.PrintUID {
			return fmt.Errorf("--print-uid and --out - would both write to standard output: %w", pipeline.ErrInvalid)
		}
		_, err = s.out.Write(b.Bytes())
		return err
	}
	if err := os.WriteFile(c.Out, b.Bytes(), 0o644); err != nil {
		return err
	}
	if c.PrintUID {
		fmt.Fprintln(s.out, ds.String(pipeline.TagStudyInstanceUID))
	}
	return nil
}
