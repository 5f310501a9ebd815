"""Image against image: PSNR, SSIM, LPIPS, near-duplicates, and what a purifier or an attack did."""
