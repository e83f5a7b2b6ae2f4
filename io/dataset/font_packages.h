/* The font packages that the glyph and street tasks are drawn from. The list is part of the data:
 * other packages give other samples. jobs/fetch-data fetches the same list (a test compares).
 * SPDX-License-Identifier: BSD-3-Clause */
#ifndef AM_IO_DATASET_FONT_PACKAGES_H
#define AM_IO_DATASET_FONT_PACKAGES_H

#define AM_FONT_PACKAGES                                                                           \
    "culmus culmus-fancy fonts-aksharyogini2 fonts-anonymous-pro fonts-arabeyes fonts-beng-extra " \
    "fonts-bpg-georgian fonts-breip fonts-cabin fonts-cantarell fonts-cardo fonts-comic-neue "     \
    "fonts-dejavu-core fonts-dejavu-extra fonts-deva-extra fonts-dustin fonts-ebgaramond "         \
    "fonts-ecolier-court fonts-essays1743 fonts-farsiweb fonts-freefarsi fonts-freefont-ttf "      \
    "fonts-gargi fonts-georgewilliams fonts-gfs-artemisia fonts-gfs-baskerville "                  \
    "fonts-gfs-bodoni-classic fonts-gfs-complutum fonts-gfs-didot fonts-gfs-didot-classic "        \
    "fonts-gfs-gazis fonts-gfs-neohellenic fonts-gfs-olga fonts-gfs-porson fonts-gfs-solomos "     \
    "fonts-gfs-theokritos fonts-gnutypewriter fonts-go fonts-gubbi fonts-gujr-extra "              \
    "fonts-guru-extra fonts-hosny-amiri fonts-hosny-thabit fonts-inconsolata fonts-kacst "         \
    "fonts-kacst-one fonts-ldco fonts-lemonada fonts-liberation fonts-liberation2 "                \
    "fonts-linuxlibertine fonts-lobster fonts-lobstertwo fonts-lohit-beng-bengali "                \
    "fonts-lohit-deva fonts-lohit-gujr fonts-lohit-guru fonts-lohit-knda fonts-lohit-mlym "        \
    "fonts-lohit-orya fonts-lohit-taml fonts-lohit-telu fonts-monofur fonts-nafees "               \
    "fonts-nakula fonts-navilu fonts-noto-core fonts-oldstandard fonts-paktype fonts-paratype "    \
    "fonts-play fonts-quattrocento fonts-radisnoir fonts-sahadeva fonts-samyak-deva "              \
    "fonts-samyak-gujr fonts-samyak-taml fonts-sawarabi-gothic fonts-sawarabi-mincho "             \
    "fonts-senamirmir-washra fonts-sil-abyssinica fonts-sil-ezra fonts-sil-galatia "               \
    "fonts-sil-gentium-basic fonts-sil-lateef fonts-sil-scheherazade fonts-sjfonts "               \
    "fonts-staypuft fonts-summersby fonts-telu-extra fonts-tiresias fonts-tlwg-garuda-ttf "        \
    "fonts-tlwg-kinnari-ttf fonts-tlwg-laksaman-ttf fonts-tlwg-loma-ttf fonts-tlwg-mono-ttf "      \
    "fonts-tlwg-norasi-ttf fonts-tlwg-purisa-ttf fonts-tlwg-sawasdee-ttf "                         \
    "fonts-tlwg-typewriter-ttf fonts-tlwg-typist-ttf fonts-tlwg-typo-ttf fonts-tlwg-umpush-ttf "   \
    "fonts-tlwg-waree-ttf fonts-tomsontalks fonts-triod-postnaja fonts-ubuntu-title "              \
    "fonts-ukij-uyghur fonts-uralic fonts-urw-base35 fonts-vlgothic"
#define AM_FONT_LICENCE                                                                            \
    "free fonts of Debian main, mostly OFL-1.1 or GPL with font exception; see the copyright "     \
    "file of each source package"

#endif
